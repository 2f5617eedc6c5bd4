"""ViT-B/16 on ImageNet-1k from scratch: Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k".

  python -m vit_jax.main --config=configs/vit_b16.py                   90 epochs; published for S/16 only (76.5%)
  python -m vit_jax.main --config=configs/vit_b16.py:runlocal          a few steps on fake images, anywhere

The recipe of vit_s16.py for another size. Not run by us yet.
"""

import pathlib

from vit_jax import config
from vit_jax.models import vit

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.load_recipe(f'{pathlib.Path(__file__).with_name("vit_s16.py")}:{arg}')
  c.model.update(vit.size('B/16'))
  return c
