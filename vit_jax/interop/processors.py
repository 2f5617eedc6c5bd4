"""The preprocessor_config.json of transformers: how its image processors prepare a picture, honoured or refused by key.

What a file leaves out has the default of its processor's class, which is named in the file. The pixels are those of
transformers' Pillow processors, to 1/255 (experiments/interop/processors.py).
"""

import math
import sys
from typing import Any

from vit_jax.data import pictures
from vit_jax.data.preprocessing import Preprocessing, alike, parse
from vit_jax.errors import UserError
from vit_jax.interop.entries import Entries
from vit_jax.printable import say

_CLIP = {'image_mean': [0.48145466, 0.4578275, 0.40821073], 'image_std': [0.26862954, 0.26130258, 0.27577711]}
_HALF = {'image_mean': [0.5, 0.5, 0.5], 'image_std': [0.5, 0.5, 0.5]}
_IMAGENET = {'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}
_SQUARE, _SHORT = {'height': 224, 'width': 224}, {'shortest_edge': 224}
_CROP = {'do_center_crop': True, 'crop_size': _SQUARE}
# The defaults of each class, without the suffixes ImageProcessor and FeatureExtractor. A size given as one number is
# that of the short side where the default is, and where default_to_square is False.
CLASSES = {
    'ViT': {'size': _SQUARE, 'resample': 2, **_HALF},
    'DeiT': {'size': {'height': 256, 'width': 256}, 'resample': 3, **_HALF, **_CROP},
    'Beit': {'size': _SQUARE, 'resample': 3, **_HALF, 'crop_size': _SQUARE},
    'ConvNext': {'size': {'shortest_edge': 384}, 'resample': 3, 'crop_pct': 224 / 256, **_HALF},
    'CLIP': {'size': _SHORT, 'resample': 3, **_CLIP, **_CROP},
    'Bit': {'size': _SHORT, 'resample': 3, **_CLIP, **_CROP},
    'Siglip': {'size': _SQUARE, 'default_to_square': False, 'resample': 3, **_HALF},
    'DINOv3ViT': {'size': _SQUARE, 'resample': 2, **_IMAGENET},
}
# The class of files from before the class was written into them, by model_type.
_OF_MODEL = {'vit': 'ViT', 'deit': 'DeiT', 'swin': 'ViT', 'resnet': 'ConvNext', 'regnet': 'ConvNext',
             'convnext': 'ConvNext', 'convnextv2': 'ConvNext', 'dinov2': 'Bit', 'dinov2_with_registers': 'Bit',
             'dinov3_vit': 'DINOv3ViT', 'clip': 'CLIP', 'clip_vision_model': 'CLIP', 'siglip': 'Siglip',
             'siglip_vision_model': 'Siglip'}
_SUFFIXES = ('ImageProcessorFast', 'ImageProcessorPil', 'ImageProcessor', 'FeatureExtractor')
_RESAMPLE = {number: name for name, number in pictures.INTERPOLATIONS.items()}
_FREE = ('image_processor_type', 'feature_extractor_type', 'processor_class', 'do_convert_rgb', 'data_format',
         'input_data_format', 'return_tensors', 'device', 'disable_grouping', 'default_to_square',
         '_valid_processor_keys')
_LARGE = 384  # from this short side on, ConvNext's processor squeezes pictures to a square


def read(processor: dict[str, Any] | None, model_type: str, image_size: tuple[int, int], channels: int,
         where: str) -> Preprocessing:
  """The preprocessing of a processor's file.

  Args:
    processor: its preprocessor_config.json; None if there is none: the pictures are scaled to -1 to 1, which is said.
    model_type: of the model's config.
    image_size: (height, width) of the model's config, for processors that are missing.
    channels: of the model's config.
    where: the source, for messages.

  Raises:
    UserError: an unknown processor, or an entry that is not supported or not known.
  """
  if processor is None:
    say(f'{where}: no preprocessor_config.json says how pictures are prepared: they are resized to {image_size[0]}x'
        f'{image_size[1]} and scaled to -1 to 1 (mean 0.5, std 0.5), as for the ViTs of Google', sys.stderr)
    return parse({'size': image_size, 'channels': channels, 'squeeze': True}, where)
  kind = str(processor.get('image_processor_type') or processor.get('feature_extractor_type')
             or _OF_MODEL.get(model_type, ''))
  name = next((kind.removesuffix(suffix) for suffix in _SUFFIXES if kind.endswith(suffix)), kind)
  at = f'{where}: its preprocessor_config.json'
  if name not in CLASSES:
    raise UserError(f'{at}: image_processor_type={kind!r}: not supported; expected one of '
                    f'{", ".join(f"{known}ImageProcessor" for known in CLASSES)}')
  entries = Entries(CLASSES[name] | {key: value for key, value in processor.items() if value is not None}, at)
  try:
    fields = {'channels': channels, **_geometry(entries, name), **_scaling(entries)}
  except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError, AttributeError) as error:
    raise UserError(f'{at}: cannot be interpreted ({error})') from error
  entries.free(*_FREE)
  entries.close()
  return parse(fields, where)


def _geometry(e, name):
  """Size and crop. A picture is resized as a whole, to whole pixels, and cut out of at whole pixels."""
  e.only('do_resize', True)
  e.only('do_pad', False)
  e.only('do_flip_channel_order', False)
  e.only('do_reduce_labels', False)
  for key in ('pad_size', 'size_divisor', 'rescale_offset'):
    e.only(key, None, False)
  interpolation = e.choose('resample', _RESAMPLE.items(), None)
  size, short = _size(e, name)
  crop = e.switched('do_center_crop')
  crop_size = _crop_size(e) if crop else e.free('crop_size')
  out = {'interpolation': interpolation, 'squeeze': not short}
  if name == 'ConvNext':
    percent = e.get('crop_pct')
    if not short:
      raise e.refused('size', 'expected {"shortest_edge": ..}')
    if crop:
      raise e.refused('do_center_crop', 'expected False for this processor, which crops by crop_pct')
    if size[0] >= _LARGE:
      return out | {'size': size, 'squeeze': True}
    return out | {'size': size, 'crop': size[0] / int(size[0] / percent), 'pixels': 'floor'}
  e.only('crop_pct', None)
  if not crop:
    if short:
      raise e.refused('size', 'the short side alone, without a crop, leaves pictures of all shapes')
    return out | {'size': size}
  if crop_size[0] > size[0] or crop_size[1] > size[1]:
    raise e.refused('crop_size', f'larger than size={size}, around which transformers pads with black')
  if not short and size[0] * crop_size[1] != size[1] * crop_size[0]:
    raise e.refused('crop_size', f'expected the proportions of size={size}')
  return out | {'size': crop_size, 'crop': min(crop_size) / min(size), 'pixels': 'floor'}


def _size(e, name):
  """((height, width) or twice the short side, whether it is the short side)."""
  size, by_default = e.get('size'), e.get('default_to_square')
  if isinstance(size, dict):
    if set(size) - {key for key, value in size.items() if value is None} == {'shortest_edge'}:
      return (_whole(e, 'size', size['shortest_edge']),) * 2, True
    return _pair(e, 'size', size), False
  short = 'shortest_edge' in CLASSES[name]['size'] if by_default is None else not by_default
  if isinstance(size, (list, tuple)):  # whether the height comes first depends on the version
    raise e.refused('size', 'expected {"height": .., "width": ..}')
  return (_whole(e, 'size', size),) * 2, short


def _crop_size(e):
  size = e.get('crop_size')
  return _pair(e, 'crop_size', size) if isinstance(size, dict) else (_whole(e, 'crop_size', size),) * 2


def _pair(e, key, size):
  if {name for name, value in size.items() if value is not None} != {'height', 'width'}:
    raise e.refused(key, 'expected a height and a width')
  return _whole(e, key, size['height']), _whole(e, key, size['width'])


def _whole(e, key, value):
  if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 16:
    raise e.refused(key, 'expected whole numbers from 1 to 65536')
  return value


def _scaling(e):
  """mean and std of pixels from 0 to 1: (p * factor - mean) / std of pixels from 0 to 255."""
  factor = float(e.get('rescale_factor', 1 / 255)) if e.switched('do_rescale', True) else 1.0
  by = 255 * factor
  if not by > 0 or not math.isfinite(by):
    raise e.refused('rescale_factor', 'expected a positive number')
  if math.isclose(by, 1, rel_tol=1e-6):
    by = 1.0
  if not e.switched('do_normalize', True):
    e.free('image_mean', 'image_std')
    return {'mean': (0.0,), 'std': (1 / by,)}
  listed = lambda value: value if isinstance(value, (list, tuple)) else [value]
  mean, std = (listed(e.get(key)) for key in ('image_mean', 'image_std'))
  return {'mean': alike(float(m) / by for m in mean), 'std': alike(float(s) / by for s in std)}


def write(preprocessing: Preprocessing) -> dict[str, Any]:
  """The preprocessor_config.json of a preprocessing."""
  p, (height, width) = preprocessing, preprocessing.size
  mean, std = p.per_channel()
  out = {'do_resize': True, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True,
         'image_mean': mean, 'image_std': std,
         'resample': pictures.INTERPOLATIONS[p.interpolation]}
  if p.squeeze and p.crop == 1:
    return out | {'image_processor_type': 'ViTImageProcessor', 'size': {'height': height, 'width': width}}
  size = {'height': round(height / p.crop), 'width': round(width / p.crop)} if p.squeeze else {
      'shortest_edge': round(min(height, width) / p.crop)}
  return out | {'image_processor_type': 'DeiTImageProcessor' if p.squeeze else 'CLIPImageProcessor', 'size': size,
                'do_center_crop': True, 'crop_size': {'height': height, 'width': width}}
