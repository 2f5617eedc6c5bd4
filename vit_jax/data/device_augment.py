"""Transforms of a whole batch inside the jitted step: crops after padding, flips, erasing, scaling, mixing.

Call them on the global batch. All random values are drawn as arrays of leading size B from one key. With JAX's
threefry, such an array does not depend on how the batch is sharded. So the transform of a row depends only on
(key, global row).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vit_jax.data.config import Augment, DataConfig


def normalize(images_BHWC: jax.Array, mean: tuple[float, ...] | None = None,
              std: tuple[float, ...] | None = None) -> jax.Array:
  """Converts uint8 to float32 (x / 255 - mean) / std, with one value per channel or one for all.

  None means 0.5, which gives values from -1 to 1.
  """
  mean, std = (np.asarray(values or (0.5,), np.float32).reshape(1, 1, 1, -1) for values in (mean, std))
  return (images_BHWC.astype(jnp.float32) / 255 - mean) / std


def normalizer(config: DataConfig) -> Callable[[jax.Array], jax.Array]:
  """`normalize` with the mean and std of a config."""
  return functools.partial(normalize, mean=config.mean, std=config.std)


@dataclasses.dataclass(frozen=True)
class PadCrop:
  """Pads with black pixels on all sides and crops a random window of the old size (Lee et al. 2015; He et al. 2015)."""

  padding: int = 4

  def __call__(self, key: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    B, H, W, C = images_BHWC.shape
    pad = self.padding
    corners_B2 = jax.random.randint(key, (B, 2), 0, 2 * pad + 1)
    padded = jnp.pad(images_BHWC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cut = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (H, W, C))
    return jax.vmap(cut)(padded, corners_B2)


@dataclasses.dataclass(frozen=True)
class Flip:
  """Flips left-right with probability 1/2."""

  def __call__(self, key: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    flip_B = jax.random.bernoulli(key, 0.5, images_BHWC.shape[:1])
    return jnp.where(flip_B[:, None, None, None], images_BHWC[:, :, ::-1], images_BHWC)


@dataclasses.dataclass(frozen=True)
class RandomErasing:
  """Replaces a box by noise, with a given probability (Zhong et al. 2017).

  Its area is U(0.02, 1/3) of the picture, its aspect log-uniform from 0.3 to 3.3. Input and output are uint8. The
  values in the box are uniform in 0..255, the paper's best choice (RE-R). All rows share one noise picture per step,
  XORed with a byte of each row, as drawing all the noise would cost more than a small step.
  """

  probability: float

  def __call__(self, key: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    B, H, W, C = images_BHWC.shape
    k_on, k_size, k_place, k_noise, k_byte = jax.random.split(key, 5)
    on_B = jax.random.bernoulli(k_on, self.probability, (B,))
    size_B2 = _draw(k_size, _erased_sizes(H, W), B)
    height_B, width_B = size_B2[:, 0], size_B2[:, 1]
    place_B2 = jax.random.uniform(k_place, (B, 2))
    top_B, left_B = place_B2[:, 0] * (H - height_B), place_B2[:, 1] * (W - width_B)
    box_BHW1 = _box(H, W, top_B, top_B + height_B, left_B, left_B + width_B)
    noise = jax.random.bits(k_noise, (1, H, W, C), jnp.uint8) ^ jax.random.bits(k_byte, (B, 1, 1, 1), jnp.uint8)
    return jnp.where(box_BHW1 & on_B[:, None, None, None], noise, images_BHWC)


@dataclasses.dataclass(frozen=True)
class Mix:
  """Mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) with the next row of the batch; if both are on, half each.

  The partner is the next row rather than the mirrored one: on several devices, this moves one row between neighbours
  instead of the whole batch. Each row draws its own lambda (in the papers, each batch does). The mean over the batch is
  the same with less noise, and a row depends only on its own index. A row whose partner has weight 0 is not mixed.
  """

  mixup: float = 0.0
  cutmix: float = 0.0

  def __call__(self, key: jax.Array, images_BHWC: jax.Array, targets_BC: jax.Array,
               weights_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    B, H, W, _ = images_BHWC.shape
    k_mixup, k_cutmix, k_which = jax.random.split(key, 3)
    if self.mixup:
      lam_B = _draw(k_mixup, _beta_quantiles(self.mixup), B)
      keep_BHW1 = jnp.broadcast_to(lam_B[:, None, None, None], (B, H, W, 1))
    if self.cutmix:
      cut_BHW1, cut_lam_B = _cutmix(k_cutmix, self.cutmix, B, H, W)
      if self.mixup:
        which_B = jax.random.bernoulli(k_which, 0.5, (B,))
        keep_BHW1 = jnp.where(which_B[:, None, None, None], keep_BHW1, cut_BHW1)
        lam_B = jnp.where(which_B, lam_B, cut_lam_B)
      else:
        keep_BHW1, lam_B = cut_BHW1, cut_lam_B
    real_B = jnp.roll(weights_B, -1) > 0
    keep_BHW1 = jnp.where(real_B[:, None, None, None], keep_BHW1, 1.0)
    lam_B = jnp.where(real_B, lam_B, 1.0)
    mix = lambda x, keep: x * keep + jnp.roll(x, -1, axis=0) * (1 - keep)
    return mix(images_BHWC, keep_BHW1), mix(targets_BC, lam_B[:, None])


def _draw(key, table_K, B):
  """Draws B rows of a table of equally likely values, to sample from a distribution given by its quantiles.

  By contrast, jax.random.beta uses rejection sampling: it is slow to compile, and loops until the last row is accepted.
  """
  return jnp.asarray(table_K)[jax.random.randint(key, (B,), 0, len(table_K))]


def _beta_quantiles(alpha):
  """4,096 equally likely values of Beta(alpha, alpha), float32."""
  return scipy.special.betaincinv(alpha, alpha, (np.arange(4096) + 0.5) / 4096).astype(np.float32)


def _erased_sizes(H, W):
  """4,096 equally likely (height, width) in pixels, float32 [4096,2], from 64 areas and 64 aspects."""
  part = (np.arange(64) + 0.5) / 64
  area, aspect = np.meshgrid((0.02 + (1 / 3 - 0.02) * part) * H * W, 0.3 ** (1 - 2 * part))
  return np.stack([np.sqrt(area * aspect).clip(max=H), np.sqrt(area / aspect).clip(max=W)], -1).reshape(-1, 2).astype(
    np.float32)


def _cutmix(key, alpha, B, H, W):
  """(a mask [B,H,W,1], 0 in the box that the partner fills and 1 elsewhere; the share of pixels kept [B])."""
  k_side, k_centre = jax.random.split(key)
  side_B = _draw(k_side, np.sqrt(1 - _beta_quantiles(alpha)), B)
  centre_B2 = jax.random.uniform(k_centre, (B, 2))
  half_H, half_W = side_B * (H / 2), side_B * (W / 2)
  box_BHW1 = _box(H, W, centre_B2[:, 0] * H - half_H, centre_B2[:, 0] * H + half_H,
                  centre_B2[:, 1] * W - half_W, centre_B2[:, 1] * W + half_W)
  keep_BHW1 = 1 - box_BHW1.astype(jnp.float32)
  return keep_BHW1, keep_BHW1.mean((1, 2, 3))  # lambda is the share outside the box as clipped to the picture


def _box(H, W, top_B, bottom_B, left_B, right_B):
  """A mask bool [B,H,W,1] of the pixels whose centre is in the box of each row."""
  y_1H = (jnp.arange(H, dtype=jnp.float32) + 0.5)[None]
  x_1W = (jnp.arange(W, dtype=jnp.float32) + 0.5)[None]
  in_y_BH = (y_1H >= top_B[:, None]) & (y_1H < bottom_B[:, None])
  in_x_BW = (x_1W >= left_B[:, None]) & (x_1W < right_B[:, None])
  return (in_y_BH[:, :, None] & in_x_BW[:, None, :])[..., None]


def augment(config: Augment, normalize: Callable = normalize) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns the augmentation of a global batch in training.

  Args:
    config: which transforms are on.
    normalize: see `normalizer`.

  Returns:
    A function (key, images_BHWC, targets_BC, weights_B=None) -> (images_BHWC, targets_BC). Images are uint8 and become
    normalised float32. Targets are float32, one-hot or soft; only mixing reads them, without which they may be None.
    Rows of weight 0 are not mixed into others; weights_B=None means that all rows count.
  """
  pad_crop = PadCrop(config.crop_padding) if config.crop == 'pad' else None
  flip = Flip() if config.flip else None
  erase = RandomErasing(config.random_erasing) if config.random_erasing else None
  mix = Mix(config.mixup, config.cutmix) if config.mixup or config.cutmix else None

  def apply(key, images_BHWC, targets_BC, weights_B=None):
    k_crop, k_flip, k_erase, k_mix = (jax.random.fold_in(key, i) for i in range(4))  # fixed: options are independent
    if pad_crop:
      images_BHWC = pad_crop(k_crop, images_BHWC)
    if flip:
      images_BHWC = flip(k_flip, images_BHWC)
    if erase:
      images_BHWC = erase(k_erase, images_BHWC)
    images_BHWC = normalize(images_BHWC)
    if mix:
      weights_B = jnp.ones(images_BHWC.shape[:1]) if weights_B is None else weights_B
      images_BHWC, targets_BC = mix(k_mix, images_BHWC, targets_BC, weights_B)
    return images_BHWC, targets_BC

  return apply
