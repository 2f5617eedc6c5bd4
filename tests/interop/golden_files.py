"""Golden files in the form in which other programs save them: a folder with config.json and model.safetensors."""

import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np

from vit_jax.interop import tensors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
TOLERANCE = 1e-4  # maximum absolute difference of float32 values of about 1
_OTHERS = ('clip', 'mae', 'siglip', 'vit_hybrid')  # have tests of their own, as those of OpenCLIP have
TOWERS = sorted(path.stem for path in GOLDEN.glob('tower_*.npz'))  # are read only
NAMES = sorted({path.stem for path in GOLDEN.glob('*.npz')
                if not path.stem.startswith(('open_clip_', 'randaugment_'))}.difference(TOWERS, _OTHERS))


class Golden(NamedTuple):
  config: dict
  tensors: dict[str, np.ndarray]
  images: np.ndarray  # [B, C, H, W]
  logits: np.ndarray
  program: str  # 'hf' or 'timm'


@functools.cache
def golden(name: str) -> Golden:
  """The contents of GOLDEN/NAME.npz, with the config as in a file."""
  with np.load(GOLDEN / f'{name}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  config, images, logits = json.loads(str(arrays.pop('config'))), arrays.pop('images'), arrays.pop('logits')
  own = {key.removeprefix('param:'): value for key, value in arrays.items()}
  if name.startswith('timm_'):
    return Golden(config, own, images, logits, 'timm')
  kind = 'regnet' if name.endswith('regnet_y') else name.replace('_', '-').partition('-')[0]
  config = {'model_type': kind, 'image_size': list(images.shape[2:])} | config
  return Golden(config, own, images, logits, 'hf')


def folder(name: str, place: pathlib.Path, **changed: np.ndarray) -> pathlib.Path:
  """Writes the model of a golden file as its program would, with some tensors changed (None: omitted)."""
  place.mkdir(exist_ok=True, parents=True)
  (place / 'config.json').write_text(json.dumps(golden(name).config))
  kept = {key: value for key, value in (golden(name).tensors | changed).items() if value is not None}
  tensors.write(place / 'model.safetensors', kept, {'format': 'pt'})
  return place
