"""Decoding of pictures of any mode to upright grey or RGB pixels, with no more decoding than needed."""

import io
import math

import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the upright picture

INTERPOLATIONS = {'nearest': 0, 'lanczos': 1, 'bilinear': 2, 'bicubic': 3}  # Pillow's numbers, and transformers'
# The only decoders of Pillow that files may reach: others start programs (Ghostscript for PostScript) or fetch data.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
MOST_PIXELS = 178_956_970  # of a picture, also Pillow's limit: a small file can claim to have 4 thousand million
_ORIENTATION, _MAX_SAMPLE_VALUE = 0x0112, 281  # EXIF and TIFF tags
_PNG_TEXTS, _PNG_KEYWORDS = (b'iTXt', b'tEXt', b'zTXt'), (b'XML:com.adobe.xmp', b'Raw profile')
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class BadPicture(Exception):
  """A picture that cannot be read."""


def size(record: bytes | np.ndarray) -> tuple[int, int]:
  """(height, width) of the upright picture, read from its header."""
  if isinstance(record, np.ndarray):
    return record.shape[:2]
  if header := _plain_jpeg(record):
    return header
  image = _open(record)
  return _upright_size(image) if image.format != 'PNG' or _png_may_be_turned(record) else (image.height, image.width)


def decode(record: bytes | np.ndarray, channels: int, box: Box | None = None,
           out_size: tuple[int, int] | None = None, interpolation: str = 'bilinear', shrink: bool = True) -> np.ndarray:
  """Decodes a picture, or a resized box of it.

  EXIF rotation is applied, transparency is blended with white, and 16-bit grey is reduced to its upper 8 bits
  (of those that a TIFF says it uses). A JPEG
  is decoded at 1/2, 1/4 or 1/8 if the box then still has at least twice the pixels needed in each dimension. This is
  cheaper, and the difference is hardly visible.

  Args:
    record: an encoded picture, or uint8 [H,W,C].
    channels: 1 (luma, ITU-R 601) or 3.
    box: the part that is kept; None for the whole picture.
    out_size: (height, width) of the result; None, with `box` also None, for the picture's own size.
    interpolation: a key of INTERPOLATIONS. Shrinking uses all source pixels.
    shrink: whether a JPEG may be decoded at a smaller size.

  Returns:
    uint8 [H,W,C].

  Raises:
    BadPicture: the record is damaged, truncated or not a picture.
  """
  try:
    image = _from_array(record) if isinstance(record, np.ndarray) else _open(record)
    height, width = _upright_size(image)
    box = box or (0, 0, width, height)
    out_size = out_size or (height, width)
    if shrink:
      _shrink_while_decoding(image, box, out_size)
    image = _in_mode(_upright(image), 'L' if channels == 1 else 'RGB')
    scale_x, scale_y = image.width / width, image.height / height
    box = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
    if box != (0, 0, out_size[1], out_size[0]) or image.size != out_size[::-1]:
      image = image.resize(out_size[::-1], resample=INTERPOLATIONS[interpolation], box=box)
    pixels = np.asarray(image)
  except BadPicture:
    raise
  except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
    raise BadPicture(str(error) or type(error).__name__) from error
  return pixels[..., None] if pixels.ndim == 2 else pixels


def decode_quickly(record: bytes | np.ndarray, channels: int, box: Box, out_size: tuple[int, int],
                   interpolation: str = 'bilinear') -> np.ndarray:
  """Like `decode`, but for training: the box of a JPEG is resized from the nearest pixels alone, in half the time.

  As in common tf.data pipelines, pixels between the sampled ones are ignored when the box is shrunk. The JPEG is
  decoded at 1/8 to 1/2 if that still has the pixels needed, so the box is never shrunk by more than 2. The box is
  rounded to whole pixels. `decode` handles pictures that are not plain, undamaged JPEGs.
  """
  header = None if isinstance(record, np.ndarray) else _plain_jpeg(record)
  if header is None:
    return decode(record, channels, box, out_size, interpolation)
  import cv2
  import simplejpeg
  cv2.setNumThreads(1)  # batches are read by many threads already
  height, width = header
  shrunk = max(1, min((box[3] - box[1]) / out_size[0], (box[2] - box[0]) / out_size[1]))
  try:
    pixels = simplejpeg.decode_jpeg(record, 'GRAY' if channels == 1 else 'RGB', min_factor=2,
                                    min_height=math.ceil(height / shrunk), min_width=math.ceil(width / shrunk))
  except ValueError:  # also raised for faults that other decoders tolerate
    return decode(record, channels, box, out_size, interpolation)
  left, right = (round(x * pixels.shape[1] / width) for x in (box[0], box[2]))
  top, bottom = (round(y * pixels.shape[0] / height) for y in (box[1], box[3]))
  pixels = pixels[top:max(bottom, top + 1), left:max(right, left + 1)]
  kind = {'nearest': cv2.INTER_NEAREST, 'lanczos': cv2.INTER_LANCZOS4, 'bilinear': cv2.INTER_LINEAR,
          'bicubic': cv2.INTER_CUBIC}[interpolation]
  return cv2.resize(pixels, out_size[::-1], interpolation=kind).reshape(*out_size, channels)


def _plain_jpeg(data):
  """(height, width) of a JPEG that is certainly upright and grey or RGB; None for all other pictures."""
  if data[:2] != b'\xff\xd8' or b'Exif\0\0' in data:
    return None
  import simplejpeg
  try:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
  except ValueError:
    return None
  _check_pixels(height, width)
  return (height, width) if colours in ('Gray', 'YCbCr', 'RGB') else None


def _open(data):
  from PIL import Image
  try:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise BadPicture(f'too large: {error}') from error
  except Exception as error:
    raise BadPicture(f'not a picture, or of another format than {", ".join(FORMATS)}') from error
  _check_pixels(image.height, image.width)
  return image


def _check_pixels(height, width):
  if height * width > MOST_PIXELS:
    raise BadPicture(f'{width:,} x {height:,} pixels; expected at most {MOST_PIXELS:,} in all. Make it smaller')


def _png_may_be_turned(data):
  """Whether a PNG has a chunk from which Pillow reads an orientation. Pillow decodes all pixels before it looks."""
  at, end = 8, len(data)
  while at + 8 <= end:
    kind = data[at + 4:at + 8]
    if kind == b'eXIf' or kind in _PNG_TEXTS and data[at + 8:at + 32].startswith(_PNG_KEYWORDS):
      return True
    at += 12 + int.from_bytes(data[at:at + 4])
  return False


def _from_array(array):
  from PIL import Image
  return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _orientation(image):
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except Exception:  # a picture with damaged EXIF may still be good
    return 1


def _upright_size(image):
  width, height = image.size
  return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _shrink_while_decoding(image, box, out_size):
  if image.format != 'JPEG':
    return
  height, width = _upright_size(image)
  wanted = (math.ceil(2 * width * out_size[1] / (box[2] - box[0])),
            math.ceil(2 * height * out_size[0] / (box[3] - box[1])))
  image.draft(None, wanted[::-1] if _orientation(image) in _SIDEWAYS else wanted)


def _upright(image):
  from PIL import ImageOps
  return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _bits(image):
  """How many of 16 bits the pixels use, as the file says: a TIFF's MaxSampleValue; else 16."""
  largest = getattr(image, 'tag_v2', {}).get(_MAX_SAMPLE_VALUE)
  largest = largest[0] if isinstance(largest, tuple) and largest else largest
  return int(largest).bit_length() if isinstance(largest, int) and largest > 0 else 16


def leaves_bits_unused(record: bytes | np.ndarray) -> bool:
  """Whether a picture has 16 bits of which it uses 12 or fewer, though the file does not say so."""
  image = None if isinstance(record, np.ndarray) else _open(record)
  if image is None or not image.mode.startswith('I') or _bits(image) < 16:
    return False
  return 0 < int(np.asarray(image).max()) < 1 << 12


def _in_mode(image, mode):
  from PIL import Image
  if image.mode == mode and 'transparency' not in image.info:
    return image
  if image.mode.startswith('I'):  # 16 bits, stored in 16 or 32
    down = max(_bits(image) - 8, 0)
    image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> down).clip(0, 255).astype(np.uint8))
  elif image.mode == 'F':
    raise BadPicture('floating-point pixels have no fixed range; save as 8 or 16 bits')
  elif 'transparency' in image.info or image.mode in ('LA', 'PA', 'La', 'RGBA', 'RGBa'):
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, (255, 255, 255, 255)), image).convert('RGB')
  return image.convert(mode)
