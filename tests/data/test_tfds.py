"""Data sets that TFDS has written, read without TensorFlow. For tiny_tfds.tar.gz see make_tiny_tfds.py."""

import importlib.util
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile

import command_line
import make_tiny_tfds
import numpy as np
import pytest

from vit_jax.data import pipeline, tfds_source
from vit_jax.data.config import DataConfig
from vit_jax.data.prepare import prepare
from vit_jax.errors import UserError

HAS_TENSORFLOW = importlib.util.find_spec('tensorflow') is not None


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with tarfile.open(make_tiny_tfds.TARGET) as tar:
    tar.extractall(tmp_path, filter='data')
  return tmp_path


def test_round_trip(data_dir):
  found = tfds_source.open_tfds('tiny', str(data_dir))
  assert set(found) == {'train', 'val'}  # test's labels are held back
  assert found['train'].class_names == ('cat', 'dog', 'owl') and found['train'].image_size == (8, 6)
  for split, theirs, n in (('train', 'train', 30), ('val', 'validation', 9)):
    source = found[split]
    images = make_tiny_tfds.images(theirs, n)
    where = [int(np.argmax([(image == mine).all() for image in images])) for mine in source.images]  # TFDS shuffles
    assert sorted(where) == list(range(n))
    assert source.labels.tolist() == [i % 3 for i in where]
    assert source.read(2)[:4] == b'\x89PNG' and f'{theirs} record 2' in source.where(2)


def test_labels_are_read_once(data_dir, monkeypatch):
  labels = tfds_source.open_tfds('tiny', str(data_dir))['train'].labels
  again = tfds_source.open_tfds('tiny', str(data_dir))['train']
  monkeypatch.setattr(tfds_source.TfdsSource, '_scan', lambda *_: pytest.fail('read again'))
  np.testing.assert_array_equal(again.labels, labels)


def test_labels_are_cached_in_the_users_cache_if_the_data_is_read_only(data_dir, monkeypatch):
  real_open = open

  def read_only(path, mode='r', *args, **kwargs):
    if 'w' in mode and str(path).startswith(str(data_dir / 'tiny')):
      raise PermissionError(path)
    return real_open(path, mode, *args, **kwargs)

  monkeypatch.setattr(tfds_source, 'open', read_only, raising=False)
  labels = tfds_source.open_tfds('tiny', str(data_dir))['train'].labels
  assert len(labels) == 30 and len(list((data_dir / 'cache' / 'vit_jax').glob('*labels*.npy'))) == 1


def test_data_to_score_needs_no_train(data_dir, monkeypatch):
  monkeypatch.setattr(tfds_source, '_SPLITS', {'validation': 'val'})
  config = DataConfig(source='tfds:tiny', data_dir=str(data_dir), batch_size=8)
  with pytest.raises(UserError, match='has val, but no train.*--evaluate scores a model on it'):
    pipeline.open_data(config)
  data = pipeline.open_data(config, to_train=False)
  assert data.class_names == ('cat', 'dog', 'owl') and data.size('val') == 9
  assert sum(batch['weight'].sum() for batch in data.eval_batches('val')) == 9


def test_a_tfds_source_as_the_data_of_a_run(data_dir):
  config = dict(source='tfds:tiny', data_dir=str(data_dir), batch_size=8)
  data = pipeline.open_data(DataConfig(**config))
  assert data.image_shape == (8, 6, 3) and [data.size(s) for s in pipeline.SPLITS] == [27, 3, 9]
  from_memory = list(data.train_batches(0, 0, 4))
  inception = pipeline.open_data(DataConfig(**config, channels=3, image_size=(4, 4)))
  assert next(inception.eval_batches('test'))['image'].shape == (8, 4, 4, 3)
  source = data._parts['train'].source
  source.__dict__['images'] = None  # like a data set that is too large
  by_record = list(pipeline.Data(data.config, data._parts, data.image_shape).train_batches(0, 0, 4))
  for a, b in zip(from_memory, by_record, strict=True):
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])
  assert pickle.loads(pickle.dumps(source)).read(3) == source.read(3)


def test_a_damaged_record_is_named(data_dir):
  path = next((data_dir / 'tiny' / '1.0.0').glob('tiny-train*'))
  assert len(tfds_source.open_tfds('tiny', str(data_dir))['train'].labels) == 30  # read before the damage
  raw = bytearray(path.read_bytes())
  start = -1
  for _ in range(8):  # the pixels of the eighth record
    start = raw.index(b'IDAT', start + 1)
  raw[start:start + 8] = bytes(8)
  path.write_bytes(raw)
  data = pipeline.open_data(DataConfig(source='tfds:tiny', data_dir=str(data_dir), val_examples=0))
  with pytest.raises(UserError, match='cannot read tiny, train record 7: '):
    list(data.eval_batches('train'))
  data = pipeline.open_data(DataConfig(source='tfds:tiny', data_dir=str(data_dir), val_examples=0, on_error='skip'))
  assert sum(batch['weight'].sum() for batch in data.eval_batches('train')) == 29


def test_damage_before_the_labels_were_read(data_dir):
  path = next((data_dir / 'tiny' / '1.0.0').glob('tiny-train*'))
  raw = bytearray(path.read_bytes())
  start = raw.index(b'IDAT')
  raw[start:start + 8] = bytes(8)
  path.write_bytes(raw)
  with pytest.raises(UserError, match='tiny, train: records 0 to 29: .* is damaged: remove it and prepare it again'):
    pipeline.open_data(DataConfig(source='tfds:tiny', data_dir=str(data_dir)))


@pytest.mark.parametrize('labels_are_known', [False, True])
@pytest.mark.parametrize('left', [None, 0, 65536, 100_000])
def test_a_shard_that_is_truncated_or_missing(data_dir, left, labels_are_known):
  if labels_are_known:
    assert len(tfds_source.open_tfds('tiny', str(data_dir))['train'].labels) == 30
  path = next((data_dir / 'tiny' / '1.0.0').glob('tiny-train*'))
  path.unlink() if left is None else os.truncate(path, left)
  with pytest.raises(UserError, match=rf'tfds:tiny: the file .*{path.name} is damaged or truncated \(.+\). Fetch it'):
    pipeline.open_data(DataConfig(source='tfds:tiny', data_dir=str(data_dir)))


def test_without_tensorflow(data_dir):
  code = ('import sys\nfrom vit_jax.data import pipeline\nfrom vit_jax.data.config import DataConfig\n'
          f'data = pipeline.open_data(DataConfig(source="tfds:tiny", data_dir={str(data_dir)!r}))\n'
          'next(data.train_batches(0, 0, 1))\n'
          'assert not {"tensorflow", "torch"} & set(sys.modules)\n')
  subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('name, message', [
  ('cifar10', r'not prepared in .*cifar10.*Run `python -m vit_jax.data.prepare --name=cifar10 --data_dir='),
  ('cifar11', "TFDS has no such data set; did you mean 'cifar10"),
  ('wild_ponies', 'TFDS has no such data set; see https'),
  ('cifar10_corrupted:brightness_11', "tfds:cifar10_corrupted: no config 'brightness_11'; did you mean 'brightness_1'"),
  ('imagenet2012', r'(?s)downloads/manual.*ILSVRC2012_img_train.tar.*Then run `python -m vit_jax.data.prepare'),
])
def test_missing_data(tmp_path, name, message):
  with pytest.raises(UserError, match=message):
    pipeline.open_data(DataConfig(source=f'tfds:{name}', data_dir=str(tmp_path)))


def test_another_file_format(data_dir):
  info = data_dir / 'tiny' / '1.0.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  with pytest.raises(UserError, match='as tfrecord; only array_record'):
    tfds_source.open_tfds('tiny', str(data_dir))


@pytest.mark.skipif(HAS_TENSORFLOW, reason='TensorFlow is installed')
def test_prepare_without_tensorflow():
  with pytest.raises(UserError, match='uv run --extra prepare python -m vit_jax.data.prepare --name=cifar10'):
    prepare('cifar10', None)


@pytest.mark.parametrize('arguments, message', [
  (['--name=nothing'], 'error: '), ([], 'error: --name is missing'), (['--nam=x'], "did you mean 'name'")])
def test_the_command_prints_an_error_without_a_traceback(arguments, message, tmp_path):
  done = command_line.run('data.prepare', f'--data_dir={tmp_path}', *arguments)
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.skipif(not HAS_TENSORFLOW, reason='no TensorFlow: uv run --extra prepare')
def test_prepare(tmp_path):
  import tensorflow_datasets as tfds

  class DummyPictures(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent  # TFDS looks for a builder's metadata beside it

    def _info(self):
      return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({
        'image': tfds.features.Image(shape=(4, 4, 3)), 'label': tfds.features.ClassLabel(names=['a', 'b'])}))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(20), 'test': self._generate_examples(4)}

    def _generate_examples(self, n):
      for i in range(n):
        yield i, {'image': np.full((4, 4, 3), i, np.uint8), 'label': i % 2}

  found = prepare('dummy_pictures', str(tmp_path))
  values = found['train'].images[:, 0, 0, 0]
  assert sorted(values) == list(range(20)) and (values % 2 == found['train'].labels).all()
