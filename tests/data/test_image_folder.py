import io

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import batches as batches_lib
from vit_jax.data import pictures
from vit_jax.data.config import DataConfig
from vit_jax.data.pipeline import open_data
from vit_jax.data.sources import open_sources
from vit_jax.errors import UserError


def save(path, pixels, mode=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
  (image.convert(mode) if mode else image).save(path, **options)


def colours(n=1, size=(6, 8)):
  return np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8)


@pytest.fixture
def pets(tmp_path):
  for i in range(10):
    save(tmp_path / 'cats' / f'{i}.png', colours(i))
    save(tmp_path / 'dogs' / f'{i}.png', colours(100 + i))
  return tmp_path


def encoded(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def test_classes_are_folders_and_hidden_files_are_ignored(pets):
  save(pets / '.cache' / 'x.png', colours())
  save(pets / 'cats' / '._0.png', colours())
  save(pets / 'cats' / '.thumbs' / 'x.png', colours())
  (pets / 'cats' / 'notes.txt').write_text('no picture')
  (pets / '.DS_Store').write_bytes(b'x')
  source = open_sources(DataConfig(source=f'folder:{pets}'))['train']
  assert source.class_names == ('cats', 'dogs') and np.bincount(source.labels).tolist() == [10, 10]
  assert source.image_size == (6, 8)
  np.testing.assert_array_equal(pictures.decode(source.read(3), 3), colours(3))


def test_a_folder_without_splits_is_split(pets):
  data = open_data(DataConfig(source=f'folder:{pets}'))
  assert [data.size(s) for s in ('train', 'val', 'test')] == [14, 2, 4]
  assert np.bincount(data.labels('test')).tolist() == [2, 2] and data.image_shape == (6, 8, 3)


def test_split_folders(tmp_path):
  for split, n in (('train', 5), ('val', 2), ('test', 3)):
    for i in range(n):
      for name in ('cats', 'dogs'):
        save(tmp_path / split / name / f'{i}.JPG', colours(i), format='jpeg')
  data = open_data(DataConfig(source=f'folder:{tmp_path}'))
  assert [data.size(s) for s in ('train', 'val', 'test')] == [10, 4, 6]
  save(tmp_path / 'test' / 'cat' / '0.png', colours())
  with pytest.raises(UserError, match="test/cat: train has no such class; did you mean 'cats'"):
    open_data(DataConfig(source=f'folder:{tmp_path}'))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation(orientation):
  pixels = np.zeros((32, 48), np.uint8)
  pixels[:16, :16] = 255  # upper left corner of the stored picture
  exif = Image.Exif()
  exif[0x0112] = orientation
  record = encoded(Image.fromarray(pixels), 'jpeg', exif=exif, quality=95)
  upright = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
             6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels)}[orientation]
  assert pictures.size(record) == upright.shape
  decoded = pictures.decode(record, 1)[..., 0]
  assert np.abs(decoded.astype(int) - upright).mean() < 5


def test_modes_become_rgb_or_grey():
  grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
  rgb = np.repeat(grey[..., None], 3, axis=2)
  assert (pictures.decode(encoded(Image.fromarray(grey), 'png'), 3) == rgb).all()
  assert (pictures.decode(encoded(Image.fromarray(rgb), 'png'), 1)[..., 0] == grey).all()
  deep = Image.fromarray(grey.astype(np.uint16) * 256 + 7)
  assert (pictures.decode(encoded(deep, 'png'), 3) == rgb).all()
  assert (pictures.decode(encoded(deep, 'tiff'), 1)[..., 0] == grey).all()
  palette = Image.fromarray(rgb).quantize(256)
  assert (pictures.decode(encoded(palette, 'gif'), 3) == rgb).all()
  cmyk = pictures.decode(encoded(Image.new('CMYK', (8, 6), (0, 255, 255, 0)), 'tiff'), 3)
  assert (cmyk == [255, 0, 0]).all()
  jpeg = pictures.decode(encoded(Image.new('CMYK', (8, 6), (0, 255, 255, 0)), 'jpeg'), 3)
  assert np.abs(jpeg.astype(int) - [255, 0, 0]).max() < 8
  for kind in ('png', 'bmp', 'webp', 'tiff'):
    options = {'lossless': True} if kind == 'webp' else {}
    assert (pictures.decode(encoded(Image.fromarray(rgb), kind, **options), 3) == rgb).all(), kind


def test_transparency_is_blended_with_white():
  rgba = np.zeros((4, 4, 4), np.uint8)
  rgba[:, :2] = (255, 0, 0, 255)
  rgba[:, 2:] = (0, 0, 0, 128)
  decoded = pictures.decode(encoded(Image.fromarray(rgba), 'png'), 3)
  assert (decoded[:, :2] == [255, 0, 0]).all() and (np.abs(decoded[:, 2:].astype(int) - 127) <= 1).all()
  two = Image.fromarray(np.array([[0, 1]], np.uint8), 'P') if hasattr(Image, 'P') else Image.new('P', (2, 1))
  two.putpalette([9, 9, 9, 50, 60, 70])
  two.putpixel((1, 0), 1)
  decoded = pictures.decode(encoded(two, 'png', transparency=0), 3)
  assert decoded.tolist() == [[[255, 255, 255], [50, 60, 70]]]


def test_a_damaged_picture_is_named_or_skipped(pets):
  whole = (pets / 'dogs' / '4.png').read_bytes()
  config = dict(source=f'folder:{pets}', batch_size=7, val_examples=0, image_size=(6, 8))
  data = open_data(DataConfig(**config))  # which looks at the pictures
  (pets / 'dogs' / '4.png').write_bytes(whole[:60])
  with pytest.raises(UserError, match=r'cannot read .*dogs/4\.png: .*on_error to "skip"'):
    for split in ('train', 'test'):
      list(data.eval_batches(split))
  data = open_data(DataConfig(**config, on_error='skip'))
  errors, weights, total = [], 0.0, 0
  for split in ('train', 'test'):
    batches = data.eval_batches(split)
    for batch in batches:
      weights += batch['weight'].sum()
      assert (batch['image'][batch['weight'] == 0] == 0).all() and (batch['label'][batch['weight'] == 0] == 0).all()
    errors += batches.take_errors()
    assert batches.take_errors() == []
    total += data.size(split)
  assert total == 20 and weights == 19 and len(errors) == 1 and 'dogs/4.png' in errors[0]


def test_a_deleted_file_is_a_bad_record(pets, monkeypatch):
  monkeypatch.setattr(batches_lib, '_PAUSES', (0.0, 0.01))  # reading is retried
  data = open_data(DataConfig(source=f'folder:{pets}', on_error='skip', val_examples=0))
  for path in (pets / 'cats').glob('*.png'):
    path.unlink()
  batches = data.train_batches(0, 0, 1)
  batch = next(batches)
  batches.close()
  assert (batch['label'][batch['weight'] == 1] == 1).all() and 0 < batch['weight'].sum() < 128
  assert 'No such file' in batches.take_errors()[0]


def test_folder_errors(pets):
  def fails(message, **options):
    with pytest.raises(UserError, match=message):
      open_data(DataConfig(**({'source': f'folder:{pets}'} | options)))

  fails(f"folder:{pets}x: no such folder; did you mean '{pets.name}'", source=f'folder:{pets}x')
  (pets / 'empty').mkdir()
  fails('empty: no pictures')
  (pets / 'empty' / 'broken.jpg').write_bytes(b'not a picture')
  fails('empty: none of its 1 pictures can be read')
  (pets / 'empty' / 'broken.jpg').unlink()
  (pets / 'empty').rmdir()
  save(pets / 'cats' / 'other.png', colours(size=(9, 9)))
  fails('data.image_size: not set, and the pictures.*not all of one size')
  fails('data.num_classes: 3, but .* has 2 classes', num_classes=3)


def test_folders_that_are_not_a_data_set(tmp_path):
  for name in ('nothing', 'loose', 'lonely'):
    (tmp_path / name).mkdir()
  save(tmp_path / 'loose' / 'a.png', colours())
  save(tmp_path / 'lonely' / 'cats' / 'a.png', colours())
  save(tmp_path / 'untrained' / 'val' / 'cats' / 'a.png', colours())
  for name, message in (('nothing', 'nothing: empty'), ('loose', '1 pictures but no class folders'),
                        ('lonely', "one class, 'cats'"), ('untrained', 'has val, but no train')):
    with pytest.raises(UserError, match=message):
      open_data(DataConfig(source=f'folder:{tmp_path / name}'))
