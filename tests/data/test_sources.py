import gzip
import pathlib
import shutil

import numpy as np
import pytest

from vit_jax.data import sources
from vit_jax.data.config import DataConfig
from vit_jax.data.sources import open_sources
from vit_jax.errors import UserError

DEBIAN = pathlib.Path(sources.DEBIAN_FASHION_MNIST)
needs_fashion = pytest.mark.skipif(not DEBIAN.is_dir(), reason=f'no {DEBIAN}: apt install dataset-fashion-mnist')


def write_idx(path, array):
  raw = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, '>u4').tobytes() + array.astype(np.uint8).tobytes()
  path.write_bytes(gzip.compress(raw) if path.suffix == '.gz' else raw)


@pytest.fixture
def idx_folder(tmp_path):
  rng = np.random.default_rng(0)
  for prefix, n, suffix in (('train', 12, '.gz'), ('t10k', 6, '')):
    write_idx(tmp_path / f'{prefix}-images-idx3-ubyte{suffix}', rng.integers(0, 256, (n, 5, 4)))
    write_idx(tmp_path / f'{prefix}-labels-idx1-ubyte{suffix}', np.arange(n) % 3)
  return tmp_path


def test_digits_equal_those_of_scikit_learn():
  from sklearn.datasets import load_digits
  digits, theirs = open_sources(DataConfig())['train'], load_digits()
  np.testing.assert_array_equal(digits.labels, theirs.target)
  np.testing.assert_array_equal(digits.images[..., 0], np.round(theirs.images * 255 / 16))
  assert digits.images.shape == (1797, 8, 8, 1) and digits.images.max() == 255


def test_random_needs_no_memory_and_is_determined_by_the_index():
  config = DataConfig(source='random', image_size=(5, 7), channels=3, num_classes=11)
  train = open_sources(config)['train']
  assert len(train) == 1_281_167 and train.images is None and len(train.class_names) == 11
  assert train.read(1_281_166).shape == (5, 7, 3)
  np.testing.assert_array_equal(train.read(3), open_sources(config)['train'].read(3))
  assert (train.read(3) != train.read(4)).any() and (train.read(3) != open_sources(config)['test'].read(3)).any()
  values = np.concatenate([train.read(i).ravel() for i in range(200)])
  assert abs(values.mean() - 127.5) < 3 and values.min() < 5 and values.max() > 250
  assert len(open_sources(DataConfig(source='random:500'))['train']) == 500


def test_idx_plain_and_gz(idx_folder):
  found = open_sources(DataConfig(source=f'idx:{idx_folder}'))
  images = np.random.default_rng(0).integers(0, 256, (12, 5, 4))
  np.testing.assert_array_equal(found['train'].images[..., 0], images)
  assert found['train'].class_names == ('0', '1', '2') and found['test'].labels.tolist() == [0, 1, 2, 0, 1, 2]
  below = open_sources(DataConfig(source=f'idx:{idx_folder.name}', data_dir=str(idx_folder.parent)))
  assert len(below['train']) == 12


HUGE = np.asarray([2**31, 2**31, 4], '>u4').tobytes()


@pytest.mark.parametrize('name, damage, message', [
  ('t10k-images-idx3-ubyte', lambda raw: raw[:-1], '120 bytes after the header, for 6 x 5 x 4, got 119; .*truncated'),
  ('t10k-images-idx3-ubyte', lambda raw: raw[:9], 'truncated'),
  ('t10k-images-idx3-ubyte', lambda raw: raw + b'x', 'expected 120 bytes .* got more than 120;'),
  ('t10k-labels-idx1-ubyte', lambda raw: b'\0\0\x0d\1' + raw[4:], 'not an IDX file.*00 00 08 01, got 00 00 0d 01'),
  ('train-images-idx3-ubyte.gz', lambda raw: raw[:-20], 'truncated or damaged gzip'),
  ('train-labels-idx1-ubyte.gz', lambda raw: b'hello', 'truncated or damaged gzip'),
  ('t10k-images-idx3-ubyte', lambda raw: raw[:4] + HUGE, 'for 2147483648 x 2147483648 x 4, got 0;'),  # 0 modulo 2^64
  ('train-images-idx3-ubyte.gz', lambda raw: gzip.compress(bytes([0, 0, 8, 3]) + HUGE), 'promises 18,446,744,073,709,'),
])
def test_damaged_idx_is_named(idx_folder, name, damage, message):
  path = idx_folder / name
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(UserError, match=f'(?s){name}.*{message}'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))


def test_a_gz_file_is_unpacked_no_further_than_its_header_promises(idx_folder, monkeypatch):
  read, whole = [], gzip.GzipFile.read

  def counted(self, size=-1):
    assert size >= 0, 'the whole file'
    read.append(len(part := whole(self, size)))
    return part
  monkeypatch.setattr(gzip.GzipFile, 'read', counted)
  path = idx_folder / 'train-labels-idx1-ubyte.gz'
  path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 12]) + bytes(1 << 24)))
  with pytest.raises(UserError, match='expected 12 bytes after the header, for 12, got more than 12'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))
  assert read[-2:] == [8, 13]


def test_idx_files_that_do_not_match(idx_folder):
  images = (idx_folder / 't10k-images-idx3-ubyte').read_bytes()
  (idx_folder / 't10k-images-idx3-ubyte').write_bytes(images[:8] + bytes(4) + images[12:16])
  with pytest.raises(UserError, match=r'pictures of 0 x \d+ in t10k-\*'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))
  (idx_folder / 't10k-images-idx3-ubyte').write_bytes(images)
  write_idx(idx_folder / 't10k-labels-idx1-ubyte', np.zeros(5))
  with pytest.raises(UserError, match='6 pictures but 5 labels'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))
  write_idx(idx_folder / 't10k-labels-idx1-ubyte', np.full(6, 3))
  with pytest.raises(UserError, match='a label 3 in test, but train has 3 classes'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))
  (idx_folder / 't10k-labels-idx1-ubyte').unlink()
  with pytest.raises(UserError, match='no file t10k-labels-idx1-ubyte'):
    open_sources(DataConfig(source=f'idx:{idx_folder}'))


@needs_fashion
def test_real_fashion_mnist():
  found = open_sources(DataConfig(source='fashion_mnist'))
  train, test = found['train'], found['test']
  assert train.images.shape == (60000, 28, 28, 1) and test.images.shape == (10000, 28, 28, 1)
  assert np.bincount(train.labels).tolist() == [6000] * 10 and np.bincount(test.labels).tolist() == [1000] * 10
  assert train.class_names[train.labels[0]] == 'Ankle boot'
  assert abs(train.images.mean() / 255 - 0.2860) < 1e-3  # the published mean


@needs_fashion
def test_fashion_mnist_with_a_truncated_file(tmp_path):
  for path in DEBIAN.iterdir():
    shutil.copy(path, tmp_path)
  path = tmp_path / 't10k-images-idx3-ubyte.gz'
  path.write_bytes(path.read_bytes()[:100_000])
  with pytest.raises(UserError, match='t10k-images-idx3-ubyte.gz: truncated'):
    open_sources(DataConfig(source='fashion_mnist', data_dir=str(tmp_path)))


def test_without_fashion_mnist_the_error_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'DEBIAN_FASHION_MNIST', str(tmp_path / 'none'))
  with pytest.raises(UserError, match='apt install dataset-fashion-mnist.*prepare --name=fashion_mnist --data_dir='):
    open_sources(DataConfig(source='fashion_mnist', data_dir=str(tmp_path)))


@pytest.mark.parametrize('source, message', [
  ('digit', "no source 'digit'; did you mean 'digits'.*tfds:digit"),
  ('cifar10', r"no source 'cifar10'.*tfds:cifar10"),
  ('idx', 'expected idx:DIR'),
  ('idx:/nowhere', 'idx:/nowhere: no such folder'),
  ('random:many', 'random:N'),
  ('random:0', 'random:N'),
])
def test_source_errors(source, message):
  with pytest.raises(UserError, match=message):
    open_sources(DataConfig(source=source))
