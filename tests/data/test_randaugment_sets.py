"""RandAugment's operations of published programs: timm's pixel by pixel, big_vision's by its formulas."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import config as data_config
from vit_jax.data.config import Augment, DataConfig
from vit_jax.data.host_augment import generator, train_transforms
from vit_jax.data.randaugment import RandAugment, published
from vit_jax.errors import UserError

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / 'golden' / 'randaugment_timm.npz')
CASES = [name for name in GOLDEN.files if name != 'picture']
MEAN = (124, 116, 104)


def applied(whose, name, m, sign=1, fill=(128, 128, 128), picture=GOLDEN['picture'], rng=None):
  return np.asarray(published(whose)[name](Image.fromarray(picture), m, sign, fill, rng)).astype(int)


def test_timm_pixel_by_pixel():
  assert {case.partition(':')[0] for case in CASES} == set(published('timm')) and len(CASES) == 4 * 15
  for case in CASES:
    name, magnitude, sign = case.split(':')
    np.testing.assert_array_equal(applied('timm', name, int(magnitude) / 10, int(sign), MEAN), GOLDEN[case], case)


def test_big_vision_by_its_formulas():
  """The list of distort_image_with_randaugment, and level_to_arg at 10 and 15 of 10."""
  assert set(published('big_vision')) == {
      'auto_contrast', 'equalize', 'invert', 'rotate', 'posterize', 'solarize', 'color', 'contrast', 'brightness',
      'sharpness', 'shear_x', 'shear_y', 'translate_x', 'translate_y', 'cut_out', 'solarize_add'}
  x, at = GOLDEN['picture'].astype(int), lambda name, m, **more: applied('big_vision', name, m, **more)
  np.testing.assert_array_equal(at('posterize', 1.0), x // 16 * 16)
  np.testing.assert_array_equal(at('posterize', 1.5), x // 4 * 4)
  np.testing.assert_array_equal(at('solarize', 1.0), 255 - x)
  np.testing.assert_array_equal(at('solarize', 1.5), np.where(x < 128, x, 255 - x))
  np.testing.assert_array_equal(at('solarize_add', 1.5), np.where(x < 128, np.minimum(x + 165, 255), x))
  np.testing.assert_allclose(at('brightness', 1.5), np.minimum(x * 2.8, 255), atol=1)
  wide = np.tile(GOLDEN['picture'], (30, 20, 1))  # 300 x 240 pixels: grey is 255 there
  np.testing.assert_allclose(at('contrast', 1.0, picture=wide), np.clip(255 + 1.9 * (wide - 255.0), 0, 255), atol=1)
  np.testing.assert_array_equal(at('translate_x', 1.0, picture=wide)[:, :140], wide[:, 100:])
  assert (at('translate_x', 1.0, picture=wide)[:, 140:] == 128).all()
  holes = [(at('cut_out', 1.5, picture=wide, rng=generator(0, 0, row)) != wide).any(-1) for row in range(9)]
  assert max(hole.sum() for hole in holes) > 0.9 * 120 * 120 and len({hole.tobytes() for hole in holes}) == 9


def test_each_set_is_drawn_and_grey_pictures_are_augmented():
  for whose in ('timm', 'big_vision'):
    step = train_transforms(Augment(randaugment_layers=1, randaugment_operations=whose), (8, 8), 3)[1]
    assert step == RandAugment(1, operations=whose)
    grey = np.arange(240, dtype=np.uint8).reshape(15, 16, 1)
    out = [RandAugment(2, 9.0, operations=whose)(grey, generator(0, 0, row)) for row in range(60)]
    assert len({pixels.tobytes() for pixels in out}) > 25 and {pixels.shape for pixels in out} == {(15, 16, 1)}


def test_magnitudes_beyond_the_scale():
  augment = Augment(randaugment_layers=2, randaugment_magnitude=15.0)
  with pytest.raises(UserError, match='must be at most 10 with data.augment.randaugment_operations=paper'):
    data_config.check(DataConfig(augment=augment))
  data_config.check(DataConfig(augment=Augment(randaugment_magnitude=15.0, randaugment_operations='big_vision')))
