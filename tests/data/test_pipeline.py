import collections
import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from vit_jax import schema
from vit_jax.data import batches as batches_lib
from vit_jax.data import pipeline
from vit_jax.data.config import Augment, DataConfig
from vit_jax.data.image_folder import FolderSource
from vit_jax.data.pictures import BadPicture
from vit_jax.data.pipeline import open_data
from vit_jax.errors import UserError

MEMORY = DataConfig(batch_size=40)
RECORDS = DataConfig(batch_size=40, image_size=(12, 12), channels=3,
                     augment=Augment(crop='inception', randaugment_layers=2, color_jitter=0.3))
BOTH = pytest.mark.parametrize('config', [MEMORY, RECORDS], ids=['memory', 'records'])


def read(batches):
  out = list(batches)
  batches.close()
  return out


def assert_equal(a, b):
  assert len(a) == len(b) > 0
  for x, y in zip(a, b):
    assert set(x) == set(y) == {'image', 'label', 'weight'}
    for key in x:
      np.testing.assert_array_equal(x[key], y[key])


@BOTH
def test_batches(config):
  data = open_data(config)
  batches = read(data.train_batches(seed=0, first_step=0, num_steps=3))
  assert len(batches) == 3 and data.image_shape == ((8, 8, 1) if config is MEMORY else (12, 12, 3))
  for batch in batches:
    assert batch['image'].shape == (40, *data.image_shape) and batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32 and batch['weight'].dtype == np.float32 and batch['weight'].min() == 1
  assert (batches[0]['image'] != batches[1]['image']).any()
  other = read(data.train_batches(seed=1, first_step=0, num_steps=1))[0]
  assert (batches[0]['label'] != other['label']).any()


@BOTH
def test_resumed_batches_equal_uninterrupted_ones(config):
  data = open_data(config)
  whole = read(data.train_batches(0, 0, 6))
  assert_equal(read(open_data(config).train_batches(0, 4, 2)), whole[4:])


@BOTH
def test_rows_of_several_processes_form_one_batch(config):
  data = open_data(config)
  whole = read(data.train_batches(3, 5, 2))
  parts = [read(data.train_batches(3, 5, 2, rows=rows)) for rows in (slice(0, 10), slice(10, 37), slice(37, 40))]
  joined = [{key: np.concatenate([part[i][key] for part in parts]) for key in whole[0]} for i in range(2)]
  assert_equal(joined, whole)


def test_any_number_of_workers_gives_the_same_batches():
  data = open_data(RECORDS)
  alone, helped = read(data.train_batches(0, 2, 3)), read(data.train_batches(0, 2, 3, workers=2))
  assert_equal(alone, helped)
  assert type(helped[0]['image']) is np.ndarray
  assert_equal(read(data.eval_batches('val')), read(data.eval_batches('val', workers=1)))


def test_record_batches_equal_memory_batches(monkeypatch):
  config = DataConfig(batch_size=50, image_size=(10, 9), channels=3)
  in_memory = open_data(config)
  assert in_memory.arrays('train') is not None
  monkeypatch.setattr(pipeline, '_IN_MEMORY_BYTES', 0)
  by_record = open_data(config)
  assert by_record.arrays('train') is None
  assert_equal(read(in_memory.train_batches(0, 24, 4)), read(by_record.train_batches(0, 24, 4)))
  assert_equal(read(in_memory.eval_batches('val', 33)), read(by_record.eval_batches('val', 33)))


@pytest.mark.parametrize('batch_size', [1, 7, 48, 144, 145, 1000])
def test_evaluation_counts_every_example_once(batch_size):
  data = open_data(MEMORY)
  batches = read(data.eval_batches('val', batch_size))
  real = np.concatenate([batch['weight'] for batch in batches]) == 1
  labels = np.concatenate([batch['label'] for batch in batches])
  images = np.concatenate([batch['image'] for batch in batches])
  assert real.sum() == data.size('val') == 144 and len(real) % batch_size == 0 and len(real) - 144 < batch_size
  np.testing.assert_array_equal(labels[real], data.labels('val'))
  np.testing.assert_array_equal(images[real], data.arrays('val')['image'])
  assert (labels[~real] == 0).all() and (images[~real] == 0).all()


@BOTH
def test_every_process_gets_the_same_number_of_evaluation_batches(config):
  data = open_data(config)
  whole = read(data.eval_batches('val', 100))
  halves = [read(data.eval_batches('val', 100, rows=rows)) for rows in (slice(0, 50), slice(50, 100))]
  joined = [{key: np.concatenate([half[i][key] for half in halves]) for key in whole[0]} for i in range(len(whole))]
  assert_equal(joined, whole)
  assert halves[1][-1]['weight'].sum() == 0  # 144 examples: the second half of the last batch is padding


def test_evaluation_batches_of_train():
  data = open_data(RECORDS)
  batches = read(data.eval_batches('train', 500))
  assert sum(batch['weight'].sum() for batch in batches) == data.unique_examples
  assert_equal(batches, read(data.eval_batches('train', 500)))


def test_one_epoch_is_the_subset():
  data = open_data(DataConfig(batch_size=10, unique_examples=100))
  assert data.unique_examples == data.size('train') == 100
  seen = np.concatenate([batch['image'] for batch in read(data.train_batches(0, 10, 10))])
  images = data.arrays('train')['image']
  assert sorted(image.tobytes() for image in seen) == sorted(image.tobytes() for image in images)
  held_out = {image.tobytes() for split in ('val', 'test') for image in data.arrays(split)['image']}
  assert len(held_out & {image.tobytes() for image in open_data(MEMORY).arrays('train')['image']}) == 0


def test_random_source():
  config = DataConfig(source='random', image_size=(6, 6), channels=1, num_classes=10, batch_size=64)
  data = open_data(config)
  assert data.num_classes == 10 and data.size('val') == 10_000 and data.size('test') == 50_000
  assert_equal(read(data.train_batches(0, 10**6, 2)), read(data.train_batches(0, 10**6, 2)))


def jpeg_folder(folder, n=12):
  """Training pictures of two classes, of which b/5.jpg is truncated, and intact test pictures."""
  rng = np.random.default_rng(0)
  for split in ('train', 'test'):
    for i in range(n):
      path = folder / split / 'ab'[i % 2] / f'{i}.jpg'
      path.parent.mkdir(exist_ok=True, parents=True)
      file = io.BytesIO()
      Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(file, 'jpeg')
      path.write_bytes(file.getvalue()[:700 if (split, i) == ('train', 5) else None])
  return folder


@pytest.mark.parametrize('workers', [0, 1])
def test_bad_records_keep_their_place(tmp_path, workers):
  config = dict(source=f'folder:{jpeg_folder(tmp_path)}', image_size=(8, 8), batch_size=40, val_examples=0,
                augment=Augment(crop='inception'))
  broken = tmp_path / 'train' / 'b' / '5.jpg'
  half = broken.read_bytes()
  broken.write_bytes(broken.with_name('7.jpg').read_bytes())
  stopping = open_data(DataConfig(**config))  # which looks at the pictures
  broken.write_bytes(half)
  data = open_data(DataConfig(**config, on_error='skip'))
  batches = data.train_batches(0, 0, 2, workers=workers)
  first = next(batches)
  missing = first['weight'] == 0
  errors = batches.take_errors()
  assert 2 <= missing.sum() == len(errors) and all('b/5.jpg' in error for error in errors)
  assert (first['image'][missing] == 0).all() and (first['label'][missing] == 0).all()
  next(batches)
  assert len(batches.take_errors()) >= 2
  batches.close()
  stopping = stopping.train_batches(0, 0, 2, workers=workers)
  with pytest.raises(UserError, match=r'cannot read .*b/5\.jpg'):
    next(stopping)
  with pytest.raises(StopIteration):
    next(stopping)


def test_a_brief_failure_of_the_disk_loses_no_picture(tmp_path, monkeypatch):
  config = DataConfig(source=f'folder:{jpeg_folder(tmp_path)}', image_size=(8, 8), batch_size=4, val_examples=0,
                      on_error='skip')
  data = open_data(config)
  whole = read(data.train_batches(0, 0, 3))
  tries, real_read = collections.Counter(), FolderSource.read

  def fails_twice(self, i):
    tries[i] += 1
    if tries[i] <= 2:
      raise BadPicture('Connection reset by peer')
    return real_read(self, i)

  monkeypatch.setattr(FolderSource, 'read', fails_twice)
  monkeypatch.setattr(batches_lib.time, 'sleep', lambda seconds: None)
  assert_equal(whole, read(data.train_batches(0, 0, 3)))
  assert min(tries.values()) >= 3


def test_closing_ends_all_threads():
  before = set(threading.enumerate())
  batches = open_data(RECORDS).train_batches(0, 0, 100)
  next(batches)
  batches.close()
  batches.close()
  with pytest.raises(StopIteration):
    next(batches)
  deadline = time.monotonic() + 10
  while set(threading.enumerate()) - before and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not set(threading.enumerate()) - before


def test_a_program_that_does_not_close_its_batches_ends(tmp_path):
  script = tmp_path / 'main.py'
  script.write_text('from vit_jax.data.config import *\nfrom vit_jax.data.pipeline import open_data\n'
                    'if __name__ == "__main__":\n'
                    '  data = open_data(DataConfig(augment=Augment(randaugment_layers=1)))\n'
                    '  batches = [data.train_batches(0, 0, 1000, workers=w) for w in (0, 1)]\n'
                    '  print([next(b)["label"].shape for b in batches])\n')
  done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0 and '[(128,), (128,)]' in done.stdout


def test_pictures_in_memory_are_gathered_a_batch_at_a_time():
  """A batch of 1,000 takes some more calls than one of 10, far fewer than pictures: NumPy does the work of each."""
  calls = {}
  for batch_size in (10, 1000):
    config = DataConfig(batch_size=batch_size, image_size=(28, 28), augment=Augment(crop='pad', flip=True))
    batches = open_data(config).train_batches(0, 0, 2)
    next(batches)
    calls[batch_size] = 0

    def count(frame, event, argument, batch_size=batch_size):
      calls[batch_size] += event in ('call', 'c_call')

    sys.setprofile(count)
    try:
      assert len(next(batches)['label']) == batch_size
    finally:
      sys.setprofile(None)
  assert 0 < calls[10] and calls[1000] < 100


def test_opening_the_digits_imports_nothing_heavy():
  code = ('import sys\nfrom vit_jax.data.config import DataConfig\nfrom vit_jax.data.pipeline import open_data\n'
          'next(open_data(DataConfig()).train_batches(0, 0, 1))\n'
          'heavy = {"jax", "grain", "sklearn", "tensorflow_datasets", "tensorflow", "torch"} & set(sys.modules)\n'
          'assert not heavy, heavy\n')
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('options, message', [
  ({'batch_size': 0}, 'data.batch_size=0: must be from 1 to 1,048,576'),
  ({'channels': 2}, 'data.channels=2: must be 1 or 3'),
  ({'num_classes': 7}, 'data.num_classes: 7, but digits has 10 classes'),
  ({'unique_examples': 5000}, 'data.unique_examples: 5,000, but there are only 1,293'),
  ({'val_examples': -1}, 'data.val_examples=-1: must be at least 0'),
  ({'augment': Augment(mixup=-0.1)}, 'data.augment.mixup=-0.1: must be 0 .off. or from 0.001 to 1,000'),
  ({'augment': Augment(randaugment_magnitude=20)},
   'data.augment.randaugment_magnitude=20: must be at most 10 with data.augment.randaugment_operations=paper'),
  ({'augment': Augment(randaugment_magnitude=40)}, 'data.augment.randaugment_magnitude=40: must be from 0 to 30'),
])
def test_errors(options, message):
  with pytest.raises(UserError, match=message):
    open_data(DataConfig(**options))


def test_rows_outside_the_batch_and_unknown_splits():
  data = open_data(MEMORY)
  with pytest.raises(UserError, match='none of the 40 rows of a batch: expected at least one'):
    data.train_batches(0, 0, 1, rows=slice(50, 60))
  with pytest.raises(UserError, match="split 'valid': expected one of train, val, test"):
    data.size('valid')


def test_every_option_can_be_set_in_a_recipe():
  recipe = schema.to_config_dict(DataConfig)
  recipe.source, recipe.image_size, recipe.unique_examples = 'tfds:cifar10', (16, 16), 1000
  recipe.augment.crop, recipe.augment.eval_crop = 'inception', 0.9
  config = schema.cast(DataConfig, recipe)
  assert config.image_size == (16, 16) and config.augment.eval_crop == 0.9
  assert schema.changed(schema.cast(DataConfig, schema.to_config_dict(DataConfig))) == {}
