"""What changes the fingerprint of a data set, and what does not."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import fingerprint, pipeline
from vit_jax.data.array_sources import ArraySource
from vit_jax.data.config import DataConfig
from vit_jax.data.fingerprint import SAMPLE, of


def _memory(images, labels, names=('a', 'b')):
  source = ArraySource('made', names, images, labels)
  return of(source, np.arange(len(images)), labels)


def test_of_pictures_in_memory_every_bit_counts():
  images, labels = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8), np.arange(300) % 2
  whole = _memory(images, labels)
  assert _memory(images.copy(), labels.copy()) == whole
  flipped = images.copy()
  flipped[217, 3, 5] ^= 1
  assert len({whole, _memory(flipped, labels), _memory(images, 1 - labels), _memory(images[:-1], labels[:-1]),
              _memory(images[::-1], labels), _memory(images, labels, ('a', 'c'))}) == 6


@pytest.fixture(name='folder')
def _folder(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('cat', 'dog'):
    (tmp_path / 'pets' / name).mkdir(parents=True)
    for i in range(12):
      Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / 'pets' / name / f'{i}.png')
  return tmp_path / 'pets'


def _of_folder(folder):
  data = pipeline.open_data(DataConfig(source=f'folder:{folder}'))
  return {split: data.fingerprint(split) for split in pipeline.SPLITS}


def test_a_copy_elsewhere_is_the_same_data(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'elsewhere' / 'pets')
  assert _of_folder(folder) == _of_folder(tmp_path / 'elsewhere' / 'pets')


def test_other_files_names_sizes_and_contents_are_other_data(folder):
  whole, seen = _of_folder(folder), []

  def changed():
    seen.append(_of_folder(folder))
    assert seen[-1] != whole and seen[-1] not in seen[:-1]

  path = folder / 'cat' / '3.png'
  content = path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size: all 24 pictures are in the sample
  changed()
  path.write_bytes(content + b'more')
  changed()
  path.write_bytes(content)
  assert _of_folder(folder) == whole
  path.rename(folder / 'cat' / 'other.png')
  changed()
  (folder / 'cat').rename(folder / 'kitten')
  changed()


class _Many:
  """Names without pictures: what a large folder costs."""
  name, images, class_names, reads = 'many', None, ('a', 'b'), 0

  def key(self, i):
    return f'n{i // 1000:08d}/picture_{i}.jpeg {i}'

  def read(self, i):
    self.reads += 1
    return b'x' * 100


def test_what_takes_long_has_a_progress_bar(monkeypatch, capsys):
  quick = of(_Many(), np.arange(500), np.arange(500) % 2)
  assert not capsys.readouterr().err
  monkeypatch.setattr(fingerprint, '_PATIENCE_S', -1)
  assert of(_Many(), np.arange(500), np.arange(500) % 2) == quick
  assert '500/500' in (said := capsys.readouterr().err) and 'fingerprint of many: names and sizes' in said


def test_a_large_data_set_is_sampled():
  many, labels = _Many(), np.arange(50_000) % 2
  start = time.process_time()
  whole = of(many, np.arange(50_000), labels)
  assert many.reads == SAMPLE and time.process_time() - start < 2  # 0.1 s
  assert of(many, np.arange(49_999), labels[:-1]) != whole
