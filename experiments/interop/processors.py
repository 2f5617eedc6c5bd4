"""Processor files drawn at random, against transformers' own processors: pixels within 1/255, or refused.

  python experiments/interop/processors.py [--files=200] [--seed=0]

The pictures are 20 arrays of random sizes, smooth with noise. The reference is the processor of the same name with the
Pillow backend. Differences are of pixels from 0 to 1, after undoing mean and std of the larger of the two.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import sys
import warnings

warnings.filterwarnings('ignore')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
import numpy as np  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402

from vit_jax.errors import UserError  # noqa: E402
from vit_jax.interop import processors  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / 'results'
CLASSES = ('ViT', 'DeiT', 'ConvNext', 'CLIP', 'Siglip', 'Bit', 'Beit')
PICTURES = 20
# A rounding of a half to the other side is one level of 255; the rest is that of float32.
TOLERANCE = 1 / 255 + 1e-4


def draw(rng):
  """The contents of a preprocessor_config.json."""
  side = rng.choice([32, 37, 64])
  big = side + rng.choice([0, 5, 8, 16])
  size = rng.choice([{'height': side, 'width': side}, {'height': side, 'width': side + 8}, {'shortest_edge': big}, big,
                     {'shortest_edge': side}])
  options = {
      'size': [size], 'resample': [0, 1, 2, 3], 'do_center_crop': [True, False],
      'crop_size': [{'height': side, 'width': side}, side, {'height': side, 'width': side - 5}],
      'do_rescale': [True, False], 'rescale_factor': [1 / 255, 1 / 127.5], 'do_normalize': [True, False],
      'image_mean': [[0.485, 0.456, 0.406], [0.0, 0.0, 0.0]], 'image_std': [[0.229, 0.224, 0.225], [1.0, 1.0, 1.0]],
      'do_resize': [True, True, True, False], 'crop_pct': [0.875, 0.9], 'do_convert_rgb': [True],
      'do_flip_channel_order': [True, False], 'do_pad': [True, False]}
  often = ('size', 'crop_size', 'resample')
  out = {key: rng.choice(values) for key, values in options.items() if rng.random() < (0.9 if key in often else 0.25)}
  return {'image_processor_type': f'{rng.choice(CLASSES)}ImageProcessor'} | out


def picture(rng):
  """uint8 [H, W, 3]."""
  height, width = rng.integers(20, 130, 2)
  coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)).resize((width, height), Image.BICUBIC)
  return (np.asarray(coarse, np.int64) + rng.integers(-20, 21, (height, width, 3))).clip(0, 255).astype(np.uint8)


def outcome(file, pictures):
  """(verdict, words, largest difference)."""
  try:
    ours = processors.read(file, 'vit', (224, 224), 3, 'file')
  except UserError as error:
    return 'refused', str(error), None
  name = file['image_processor_type'].removesuffix('ImageProcessor')
  theirs = getattr(transformers, f'{name}ImageProcessorPil')(**{k: v for k, v in file.items() if 'type' not in k})
  worst, std = 0.0, np.asarray(ours.std, np.float32).reshape(-1, 1, 1)
  for pixels in pictures:
    expected = theirs(Image.fromarray(pixels), return_tensors='np')['pixel_values'][0]
    found = np.asarray(ours.normalize(ours.prepare(pixels)[None]))[0].transpose(2, 0, 1)
    if found.shape != expected.shape:
      return 'wrong', f'shape {found.shape}, theirs {expected.shape}', None
    worst = max(worst, float(np.abs((found - expected) * std).max()))
  return ('equal' if worst <= TOLERANCE else 'wrong'), '', worst


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--files', type=int, default=200)
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  rng, made = random.Random(flags.seed), np.random.default_rng(flags.seed)
  pictures, rows, counts = [picture(made) for _ in range(PICTURES)], [], collections.Counter()
  for _ in range(flags.files):
    file = draw(rng)
    try:
      verdict, words, worst = outcome(file, pictures)
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # of transformers
      verdict, words, worst = 'not built', f'{type(error).__name__}: {error}'[:120], None
    counts[verdict] += 1
    rows.append(json.dumps({'verdict': verdict, 'worst': worst, 'words': words, 'file': file}))
    print(rows[-1], flush=True)
  summary = {'transformers': transformers.__version__, 'pictures': PICTURES, 'seed': flags.seed,
             **{word: counts[word] for word in ('equal', 'refused', 'wrong', 'not built')}}
  print(json.dumps(summary))
  RESULTS.mkdir(exist_ok=True)
  (RESULTS / 'processors.jsonl').write_text('\n'.join([json.dumps(summary), *rows]) + '\n')
  return bool(counts['wrong'])


if __name__ == '__main__':
  sys.exit(main())
