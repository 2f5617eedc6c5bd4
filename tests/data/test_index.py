"""The index of a data set: a start reads it instead of the data, and finds the same."""

import os
import pickle
import shutil
import tarfile

import command_line
import make_tiny_tfds
import numpy as np
import pytest
from PIL import Image

from vit_jax.data import image_folder, listing, pipeline, prepare, tfds_source
from vit_jax.data import index as index_lib
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError


@pytest.fixture(name='folder', params=['one', 'split'])
def _folder(tmp_path, request):
  rng = np.random.default_rng(0)
  for split in ('train', 'val') if request.param == 'split' else ('',):
    for name in ('cat', 'dog', 'empty-ish'):
      place = tmp_path / 'pets' / split / name / 'deeper'
      place.mkdir(parents=True)
      for i in range(8):
        Image.fromarray(rng.integers(0, 256, (8, 6, 3), np.uint8)).save((place if i % 2 else place.parent) / f'{i}.png')
  return tmp_path / 'pets'


def _seen(config):
  data = pipeline.open_data(config)
  batch = next(iter(data.train_batches(0, 3, 1)))
  return ({split: (data.fingerprint(split), data.labels(split).tolist(), [data.where(split, 0)])
           for split in pipeline.SPLITS}, data.image_shape, data.class_names, batch['image'].tobytes())


def test_a_folder_is_the_same_with_its_index(folder, monkeypatch):
  config = DataConfig(source='folder:pets', data_dir=str(folder.parent), batch_size=4)
  before = _seen(config)
  paths = prepare.index(config)
  assert [path.parent for path in paths] == [folder] * len(paths) and all(path.exists() for path in paths)
  monkeypatch.setattr(listing, 'files', lambda *_: pytest.fail('listed'))
  assert _seen(config) == before
  source = image_folder.open_folder(folder)['train']
  again = pickle.loads(pickle.dumps(source))  # as a worker gets it
  assert again.read(3) == source.read(3) and len(pickle.dumps(source.paths)) < 2000


def test_of_the_default_splits_no_picture_is_read_for_a_fingerprint(folder, monkeypatch):
  config = DataConfig(source=f'folder:{folder}', image_size=(8, 6))
  prepare.index(config)
  data = pipeline.open_data(config)
  monkeypatch.setattr(image_folder.FolderSource, 'key', lambda *_: pytest.fail('asked for a key'))
  assert all(data.fingerprint(split) for split in pipeline.SPLITS)
  monkeypatch.undo()
  subset = DataConfig(source=f'folder:{folder}', image_size=(8, 6), unique_examples=6)
  known = pipeline.open_data(subset).fingerprint('train')
  for path in folder.glob('*.arrow'):
    path.unlink()
  assert pipeline.open_data(subset).fingerprint('train') == known


def test_an_index_of_other_data_is_refused(folder):
  config = DataConfig(source=f'folder:{folder}')
  prepare.index(config)
  path = next(folder.rglob('cat/0.png'))
  content = path.read_bytes()
  path.write_bytes(content + b'more')
  with pytest.raises(UserError, match='0.png has .* bytes, and .* in the index. Make it again: python -m vit_jax.data'):
    pipeline.open_data(config)
  path.write_bytes(content)
  split = 'train' if (folder / 'train').exists() else ''
  shutil.copytree(folder / split / 'cat', folder / split / 'lynx')
  with pytest.raises(UserError, match='vit_jax-index-train.arrow is of other data than those beside it'):
    pipeline.open_data(config)
  index_lib.path_of(folder, 'train').write_bytes(b'ARROW1 damaged')
  with pytest.raises(UserError, match='no index .*remove it, and make it again'):
    pipeline.open_data(config)
  prepare.index(config)
  assert len(pipeline.open_data(config).class_names) == 4


def test_the_index_of_a_folder_keeps_its_habits_and_faults(tmp_path, capfd, monkeypatch):
  """Names of splits, links, names that are no UTF-8; no train. Broken pictures are known without reading any."""
  rng, place = np.random.default_rng(0), tmp_path / 'pets'
  strange = os.fsdecode(b'caf\xe9')
  for split in ('Validation', 'test_set'):
    for name in ('cats', strange):
      (place / split / name).mkdir(parents=True)
      for file in ('0.png', os.fsdecode(b'\xe9.png')):
        Image.fromarray(rng.integers(0, 256, (8, 6, 3), np.uint8)).save(place / split / name / file)
    (place / split / 'cats' / 'link.png').symlink_to(f'../{strange}/0.png')
  config = DataConfig(source=f'folder:{place}', on_error='skip', image_size=(8, 6))
  broken = place / 'test_set' / 'cats' / '0.png'
  content = broken.read_bytes()
  broken.write_bytes(content[:60])

  def seen():
    data = pipeline.open_data(config, to_train=False)
    return {split: (data.fingerprint(split), [data.where(split, i) for i in range(data.size(split))])
            for split in ('val', 'test')}, capfd.readouterr().err.splitlines()[-1]

  before = seen()
  assert '1 pictures cannot be read and are left out, such as' in before[1] and len(before[0]['val'][1]) == 4
  prepare.index(config)
  assert 'test: 1 pictures cannot be read, such as' in capfd.readouterr().err
  monkeypatch.setattr(listing, 'read', lambda path: pytest.fail(f'read {path}'))
  assert seen() == before
  broken.write_bytes(content)
  with pytest.raises(UserError, match='cats/0.png has .* bytes, and 60 in the index. Make it again'):
    seen()


def test_tfds_with_its_index(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with tarfile.open(make_tiny_tfds.TARGET) as tar:
    tar.extractall(tmp_path, filter='data')
  config = DataConfig(source='tfds:tiny', data_dir=str(tmp_path), batch_size=4)
  before = _seen(config)
  assert len(prepare.index(config)) == 2
  monkeypatch.setattr(tfds_source.TfdsSource, '_scan', lambda self, pick: pytest.fail('read'))
  source = tfds_source.open_tfds('tiny', str(tmp_path))['train']
  there = index_lib.read(source.folder, 'train', tfds_source.state(source.folder))
  assert source.labels.tolist() == there.labels.tolist() and len(source.labels) == 30
  monkeypatch.undo()
  assert _seen(config) == before
  info = next((tmp_path / 'tiny').rglob('dataset_info.json'))
  info.write_text(info.read_text().replace('"name"', ' "name"', 1))
  with pytest.raises(UserError, match='is of other data than those beside it'):
    pipeline.open_data(config)


def test_tfds_in_a_bucket_is_to_be_mounted():
  with pytest.raises(UserError, match='array_record files are read through the file system. Mount the bucket'):
    pipeline.open_data(DataConfig(source='tfds:cifar10', data_dir='gs://my-bucket/data'))


@pytest.mark.parametrize('source', ['idx:digits', 'idx:gs://my-bucket/digits', 'fashion_mnist', 'emoji'])
def test_what_is_read_from_disks_alone_is_refused_in_a_bucket(source):
  with pytest.raises(UserError, match='gs://my-bucket/d.* read through the file system. Mount the bucket'):
    pipeline.open_data(DataConfig(source=source, data_dir='gs://my-bucket/data'))


def test_the_command(folder):
  done = command_line.run('data.prepare', '--index', f'--source=folder:{folder}')
  assert done.returncode == 0 and 'index: ' in done.stdout and 'vit_jax-index-train.arrow' in done.stdout, done.stderr
  for flags, said in (((), '--name is missing: expected --name=NAME'), (('--source=folder:x',), 'only with --index'),
                      (('--source=digits', '--index'), 'needs no index')):
    done = command_line.run('data.prepare', *flags)
    assert done.returncode == 1 and said in done.stderr, done.stderr
