"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s"): a CNN of depthwise convolutions, layer norms and MLPs."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import options
from vit_jax.errors import UserError, nearest
from vit_jax.layers import noise
from vit_jax.layers.conv import Conv
from vit_jax.layers.dense import Dense, normal_002, parameter, zeros
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.stack import Execution, Stack
from vit_jax.models.family import Family
from vit_jax.options import option
from vit_jax.parallel.mesh import constrain

# Liu et al. 2022, sec. 3.
SIZES = {
    'T': dict(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)),
    'S': dict(depths=(3, 3, 27, 3), widths=(96, 192, 384, 768)),
    'B': dict(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024)),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A ConvNeXt's shape; `size('T')` gives the published ones."""
  patch_size: int = option(4, least=1, most=2**14)  # of the stem, a convolution whose kernel is its stride
  # Blocks of each stage; each but the first stage halves the picture.
  depths: tuple[int, ...] = option((3, 3, 9, 3), least=1, most=4096, longest=8)
  # Channels of each stage; its MLPs are four times as wide.
  widths: tuple[int, ...] = option((96, 192, 384, 768), least=1, most=2**17, longest=8)
  kernel_size: int = option(7, least=1, most=255)  # of the depthwise convolutions
  # Initial scale of the residual branches (Touvron et al. 2021b); None: no scales.
  layer_scale: float | None = option(1e-6, most=1_000)
  grn: bool = False  # global response normalisation in the MLPs (ConvNeXt V2)
  gelu: Literal['exact', 'tanh', 'quick'] = 'exact'
  drop_path: float = option(0.0, below=1)  # stochastic depth of the last block; rises linearly from 0 at the first
  last_epsilon: float = option(1e-6, least=1e-20, most=1)  # of the last norm
  epsilon: float = option(1e-6, least=1e-20, most=1)  # of all other norms
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of matmuls and convolutions; parameters and norms stay float32


def size(name: str) -> dict:
  """The fields of a published shape: size('T')."""
  if name not in SIZES:
    raise UserError(f'ConvNeXt size {name!r}: no such published size{nearest(name, SIZES)}')
  return dict(SIZES[name])


def check(config: Config, image_shape: tuple[int, int, int]) -> None:
  """Raises UserError where the shape cannot be built; before anything is compiled.

  Rows and columns that do not fill a patch of the stem, or of a halving, are left out (as in the published code).
  """
  options.check(config, 'model')
  if len(config.depths) != len(config.widths) or not config.depths:
    raise UserError(f'model.depths={config.depths} and model.widths={config.widths}: one of each for every stage')
  if config.kernel_size % 2 == 0:
    raise UserError(f'model.kernel_size={config.kernel_size}: must be odd, such as {config.kernel_size + 1}')
  least = config.patch_size * 2 ** (len(config.depths) - 1)
  if min(image_shape[:2]) < least:
    raise UserError(f'an image of {image_shape[0]}x{image_shape[1]} is too small for model.patch_size='
                    f'{config.patch_size} and {len(config.depths)} stages: they need {least}x{least}; take a smaller '
                    'patch or fewer stages')


class Block(nnx.Module):
  """x + scale MLP(norm(depthwise convolution(x))) (Liu et al. 2022, fig. 4; with grn Woo et al. 2023, fig. 5)."""

  def __init__(self, config: Config, width: int, *, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.conv = Conv(width, width, config.kernel_size, groups=width, use_bias=True, axis='embed', rngs=rngs,
                     kernel_init=normal_002, dtype=dtype)
    self.norm = LayerNorm(width, dtype=dtype, epsilon=config.epsilon)
    self.mlp = Mlp(width, 4 * width, rngs=rngs, kernel_init=normal_002, bias_init=None, gelu=config.gelu,
                   grn=config.grn, dtype=dtype)
    self.scale = (None if config.layer_scale is None else
                  parameter(jnp.full(width, config.layer_scale, jnp.float32), ('embed',)))

  def __call__(self, x_BHWD: jax.Array, drop_path: jax.Array | None, keys_B: jax.Array | None) -> jax.Array:
    b, *_, d = x_BHWD.shape
    y_BTD = self.mlp(self.norm(self.conv(x_BHWD)).reshape(b, -1, d))
    y_BHWD = y_BTD.reshape(x_BHWD.shape)
    if self.scale is not None:
      y_BHWD = y_BHWD * self.scale[...].astype(y_BTD.dtype)[None, None, None]
    if drop_path is not None:
      y_BHWD = noise.drop_path(y_BHWD, drop_path, keys_B)
    return constrain(x_BHWD + y_BHWD, 'batch')


class Patches(nnx.Module):
  """A convolution whose kernel is its stride, and a norm after it (the stem) or before it (between stages)."""

  def __init__(self, in_channels: int, width: int, patch_size: int, *, stem: bool, rngs: nnx.Rngs,
               epsilon: float = 1e-6, dtype=jnp.float32):
    self.conv = Conv(in_channels, width, patch_size, stride=patch_size, padding=0, use_bias=True, axis='embed',
                     rngs=rngs, role='input' if stem else 'hidden', kernel_init=normal_002, dtype=dtype)
    self.norm = LayerNorm(width if stem else in_channels, dtype=dtype, epsilon=epsilon)
    self.stem = stem

  def __call__(self, x_BHWD: jax.Array) -> jax.Array:
    return self.norm(self.conv(x_BHWD)) if self.stem else self.conv(self.norm(x_BHWD))


class ConvNeXt(nnx.Module):
  """Patches -> stages of blocks -> mean over all places -> norm -> logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `check`)."""
    check(config, image_shape)
    self.config, self.execution = config, execution
    dtype, channels = jnp.dtype(config.dtype), image_shape[2]
    self.patches, self.stages = nnx.List(), nnx.List()
    for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
      self.patches.append(Patches(channels, width, 2 if i else config.patch_size, stem=not i, rngs=rngs,
                                  epsilon=config.epsilon, dtype=dtype))
      self.stages.append(Stack(lambda rngs, width=width: Block(config, width, rngs=rngs), depth, rngs=rngs))
      channels = width
    self.norm = LayerNorm(channels, dtype=dtype, epsilon=config.last_epsilon)
    self.head = Dense((channels,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output', kernel_init=zeros)

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict]:
    """See `models.family.Model`. `capture` can name 'features', a list of [B, H, W, D] after each stage."""
    c = self.config

    def call(block, x_BHWD, layer):
      return block(x_BHWD, layer.get('drop_path'), noise.fold(keys_B, layer['index'])), None

    layers = noise.layers(sum(c.depths), c.drop_path)
    x_BHWD, features, first = images_BHWC, [], 0
    for patches, stage in zip(self.patches, self.stages, strict=True):
      own = {name: values[first:first + stage.depth] for name, values in layers.items()}
      x_BHWD, _ = stage.run(constrain(patches(x_BHWD), 'batch'), own, call, self.execution)
      features.append(x_BHWD)
      first += stage.depth
    x_BD = self.norm(x_BHWD.astype(jnp.float32).mean(axis=(1, 2)))
    return self.head(x_BD.astype(jnp.float32)), {
        'pre_logits': x_BD, **({'features': features} if 'features' in capture else {})}


FAMILY = Family(Config, ConvNeXt, SIZES)
