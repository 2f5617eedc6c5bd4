"""Pictures from anywhere: the content decides which decoder is used, so only harmless ones may be reached."""

import io
import os
import struct
import subprocess
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vit_jax.data import listing, pictures
from vit_jax.data.config import DataConfig
from vit_jax.data.sources import open_sources

POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch /tmp/x) run showpage\n'


def _encoded(kind, size=(6, 8), **options):
  file = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


@pytest.mark.parametrize('read', [pictures.size, lambda data: pictures.decode(data, 3),
                                  lambda data: pictures.decode_quickly(data, 3, (0, 0, 4, 4), (4, 4))])
@pytest.mark.parametrize('data', [POSTSCRIPT, b'\xc5\xd0\xd3\xc6' + struct.pack('<6I', 32, len(POSTSCRIPT), 0, 0, 0, 0)
                                  + bytes(4) + POSTSCRIPT, _encoded('PPM'), _encoded('ICO', (16, 16)), _encoded('PCX')],
                         ids=['ps', 'eps', 'ppm', 'ico', 'pcx'])
def test_other_formats_are_refused_and_no_program_is_started(monkeypatch, read, data):
  started = lambda *_, **__: pytest.fail('a program was started')
  for module, name in ((subprocess, 'Popen'), (os, 'system'), (os, 'posix_spawn')):
    monkeypatch.setattr(module, name, started)
  with pytest.raises(pictures.BadPicture, match='of another format than BMP, GIF, JPEG, PNG, TIFF, WEBP'):
    read(data)


@pytest.mark.parametrize('kind', [*pictures.FORMATS, 'MPO'])
def test_the_formats_of_the_documented_suffixes_are_read(kind):
  two = {'save_all': True, 'append_images': [Image.new('RGB', (8, 6))]} if kind == 'MPO' else {}
  data = _encoded(kind, **two)
  assert pictures.size(data) == (6, 8) and pictures.decode(data, 3).shape == (6, 8, 3)


def _png(width, height, *chunks, pixels=b''):
  header = (b'IHDR', struct.pack('>2I5B', width, height, 8, 2, 0, 0, 0))
  parts = [header, *chunks, (b'IDAT', zlib.compress(pixels)), (b'IEND', b'')]
  whole = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
  return b'\x89PNG\r\n\x1a\n' + b''.join(whole(*part) for part in parts)


def _jpeg(width, height):
  """A JPEG whose header claims another size."""
  data = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
  at = data.index(b'\xff\xc0') + 5
  return data[:at] + struct.pack('>2H', height, width) + data[at + 4:]


@pytest.mark.parametrize('data', [_png(60_000, 60_000), _png(2**31 - 1, 2**31 - 1), _jpeg(65_000, 65_000)])
def test_a_picture_that_claims_thousands_of_millions_of_pixels_is_not_decoded(monkeypatch, data):
  monkeypatch.setattr(simplejpeg, 'decode_jpeg', lambda *_, **__: pytest.fail('decoded'))
  for read in (pictures.size, lambda d: pictures.decode(d, 3),
               lambda d: pictures.decode_quickly(d, 3, (0, 0, 4, 4), (4, 4))):
    with pytest.raises(pictures.BadPicture, match='pixels|too large'):
      read(data)
  assert pictures.MOST_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'GIF', 'BMP'])
def test_the_size_is_read_from_the_header_alone(monkeypatch, kind):
  data = _encoded(kind, (600, 800))
  monkeypatch.setattr('PIL.ImageFile.ImageFile.load', lambda self: pytest.fail('pixels were decoded'))
  assert pictures.size(data) == (600, 800)
  if kind in ('PNG', 'JPEG', 'BMP'):
    assert pictures.size(data[:len(data) // 2]) == (600, 800)


def _turned():
  exif = Image.Exif()
  exif[0x0112] = 6
  return exif.tobytes()


def test_a_png_can_be_turned_by_any_of_the_chunks_that_pillow_reads():
  xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"></x>'
  rows = bytes(1 + 3 * 8) * 6
  assert pictures.size(_encoded('PNG', exif=_turned())) == (8, 6)
  for chunk in ((b'eXIf', _turned().removeprefix(b'Exif\0\0')), (b'iTXt', xmp)):
    data = _png(8, 6, chunk, pixels=rows)
    assert pictures.size(data) == pictures.decode(data, 3).shape[:2] == (8, 6), chunk[0]
  ordinary = _png(8, 6, (b'tEXt', b'Software\0GIMP'), pixels=rows)
  assert pictures.size(ordinary) == pictures.decode(ordinary, 3).shape[:2] == (6, 8)


def test_links_in_a_circle_end_and_nothing_is_read_twice(tmp_path):
  for name in ('cats', 'dogs'):
    (tmp_path / name / 'more').mkdir(parents=True)
    for i in range(2):
      (tmp_path / name / 'more' / f'{i}.png').write_bytes(_encoded('PNG'))
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'elsewhere' / 'linked.png').write_bytes(_encoded('PNG'))
  plain = listing.files(tmp_path / 'cats')[0]
  for name in ('latest', 'best'):
    (tmp_path / name).symlink_to('.')
    (tmp_path / 'cats' / name).symlink_to('.')
    (tmp_path / 'cats' / 'more' / name).symlink_to('..')
  (tmp_path / 'cats' / 'a').symlink_to('more')
  assert listing.files(tmp_path / 'cats')[0] == plain
  (tmp_path / 'cats' / 'other').symlink_to(tmp_path / 'elsewhere')  # a link to elsewhere still counts
  assert len(listing.files(tmp_path / 'cats')[0]) == 3
  (tmp_path / 'elsewhere').rename(tmp_path / '.elsewhere')
  found = open_sources(DataConfig(source=f'folder:{tmp_path}'))
  assert found['train'].class_names == ('cats', 'dogs') and len(found['train']) == 4
