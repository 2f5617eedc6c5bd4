"""Writes randaugment_timm.npz: what each operation of timm's RandAugment (rand-..-inc1) makes of a picture.

  pip install torch==2.13.0 torchvision timm==1.0.31 pillow==13.0.0
  python tests/golden/make_randaugment_golden.py

It holds `picture`, uint8 [10, 12, 3], and OPERATION:MAGNITUDE:SIGN of each.
"""

import pathlib

import numpy as np
from PIL import Image
from timm.data import auto_augment

NAMES = {'AutoContrast': 'auto_contrast', 'Equalize': 'equalize', 'Invert': 'invert', 'Rotate': 'rotate',
         'PosterizeIncreasing': 'posterize', 'SolarizeIncreasing': 'solarize', 'SolarizeAdd': 'solarize_add',
         'ColorIncreasing': 'color', 'ContrastIncreasing': 'contrast', 'BrightnessIncreasing': 'brightness',
         'SharpnessIncreasing': 'sharpness', 'ShearX': 'shear_x', 'ShearY': 'shear_y', 'TranslateXRel': 'translate_x',
         'TranslateYRel': 'translate_y'}


def main():
  assert list(NAMES) == auto_augment.rand_augment_choices('', increasing=True)
  pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
  arrays = {'picture': pixels}
  hparams = {'img_mean': (124, 116, 104), 'interpolation': Image.Resampling.BICUBIC}
  for theirs, ours in NAMES.items():
    for magnitude in (4, 9):
      for sign in (-1, 1):
        auto_augment._randomly_negate = lambda value, sign=sign: sign * value
        out = auto_augment.AugmentOp(theirs, prob=1.0, magnitude=magnitude, hparams=hparams)(Image.fromarray(pixels))
        arrays[f'{ours}:{magnitude}:{sign}'] = np.asarray(out)
  np.savez_compressed(pathlib.Path(__file__).with_name('randaugment_timm.npz'), **arrays)


if __name__ == '__main__':
  main()
