"""What is done to a whole batch inside the jitted step: crops after padding, flips, erasing, scaling, mixing.

All random values are drawn as arrays of leading size B from one key. JAX's threefry makes such an array the same
however the batch is sharded, so what happens to a row depends on (key, global row) alone. Call these on the global
batch.
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
  """uint8 0..255 to float32 (x / 255 - mean) / std; one value for each channel or for all.

  None is 0.5: from -1 to 1, for any data set.
  """
  mean, std = (np.asarray(values or (0.5,), np.float32).reshape(1, 1, 1, -1) for values in (mean, std))
  return (images_BHWC.astype(jnp.float32) / 255 - mean) / std


def normalizer(config: DataConfig) -> Callable[[jax.Array], jax.Array]:
  """`normalize` as a run's data want it."""
  return functools.partial(normalize, mean=config.mean, std=config.std)


@dataclasses.dataclass(frozen=True)
class PadCrop:
  """Adds black pixels on all sides and cuts a random window of the old size (Lee et al. 2015, He et al. 2015)."""

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
  """Left-right, with probability 1/2."""

  def __call__(self, key: jax.Array, images_BHWC: jax.Array) -> jax.Array:
    flip_B = jax.random.bernoulli(key, 0.5, images_BHWC.shape[:1])
    return jnp.where(flip_B[:, None, None, None], images_BHWC[:, :, ::-1], images_BHWC)


@dataclasses.dataclass(frozen=True)
class RandomErasing:
  """With a probability, a box becomes noise (Zhong et al. 2017): area U(0.02, 1/3), aspect 0.3 to 3.3, log-uniform.

  uint8 in and out; each value in the box is uniform in 0..255, the paper's best choice (RE-R). One noise picture a
  step serves all rows, each XORed with a byte of its own: drawing all of it anew would cost more than a small step.
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
  """Mixup (Zhang et al. 2017) or CutMix (Yun et al. 2019) with the next row of the batch; with both on, half each.

  Partners are the next row and not the mirrored one: on many devices this moves one row across each border instead of
  the whole batch. Each row draws its own lambda (the papers: one per batch): the mean over the batch is the same and
  its noise smaller, and a row depends on its own number only. A row whose partner has weight 0 stays as it is.
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
  """B rows of a table of equally likely values: how awkward distributions are drawn here.

  jax.random.beta, for one, draws by rejection: slow to compile, and its loop runs as long as its unluckiest row.
  """
  return jnp.asarray(table_K)[jax.random.randint(key, (B,), 0, len(table_K))]


def _beta_quantiles(alpha):
  """4,096 equally likely values of Beta(alpha, alpha), float32."""
  return scipy.special.betaincinv(alpha, alpha, (np.arange(4096) + 0.5) / 4096).astype(np.float32)


def _erased_sizes(H, W):
  """4,096 equally likely (height, width) in pixels, float32 [4096,2]: 64 areas by 64 aspects."""
  part = (np.arange(64) + 0.5) / 64
  area, aspect = np.meshgrid((0.02 + (1 / 3 - 0.02) * part) * H * W, 0.3 ** (1 - 2 * part))
  return np.stack([np.sqrt(area * aspect).clip(max=H), np.sqrt(area / aspect).clip(max=W)], -1).reshape(-1, 2).astype(
    np.float32)


def _cutmix(key, alpha, B, H, W):
  """(0 in the box that the partner fills and 1 around it [B,H,W,1], the share of pixels kept [B])."""
  k_side, k_centre = jax.random.split(key)
  side_B = _draw(k_side, np.sqrt(1 - _beta_quantiles(alpha)), B)
  centre_B2 = jax.random.uniform(k_centre, (B, 2))
  half_H, half_W = side_B * (H / 2), side_B * (W / 2)
  box_BHW1 = _box(H, W, centre_B2[:, 0] * H - half_H, centre_B2[:, 0] * H + half_H,
                  centre_B2[:, 1] * W - half_W, centre_B2[:, 1] * W + half_W)
  keep_BHW1 = 1 - box_BHW1.astype(jnp.float32)
  return keep_BHW1, keep_BHW1.mean((1, 2, 3))  # lambda is what the box, cut off at the border, leaves


def _box(H, W, top_B, bottom_B, left_B, right_B):
  """bool [B,H,W,1]: the pixels whose centre lies in each row's box."""
  y_1H = (jnp.arange(H, dtype=jnp.float32) + 0.5)[None]
  x_1W = (jnp.arange(W, dtype=jnp.float32) + 0.5)[None]
  in_y_BH = (y_1H >= top_B[:, None]) & (y_1H < bottom_B[:, None])
  in_x_BW = (x_1W >= left_B[:, None]) & (x_1W < right_B[:, None])
  return (in_y_BH[:, :, None] & in_x_BW[:, None, :])[..., None]


def augment(config: Augment, normalize: Callable = normalize) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """What training does to a global batch; `normalize` as of `normalizer`.

  Returns:
    fn(key, images_BHWC, targets_BC, weights_B=None) -> (images_BHWC, targets_BC): images uint8 -> float32, normalised;
    targets float32 (one-hot, or soft); rows with weight 0 do not reach others. None: all rows count.
  """
  pad_crop = PadCrop(config.crop_padding) if config.crop == 'pad' else None
  flip = Flip() if config.flip else None
  erase = RandomErasing(config.random_erasing) if config.random_erasing else None
  mix = Mix(config.mixup, config.cutmix) if config.mixup or config.cutmix else None

  def apply(key, images_BHWC, targets_BC, weights_B=None):
    k_crop, k_flip, k_erase, k_mix = (jax.random.fold_in(key, i) for i in range(4))  # fixed: options do not interact
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
