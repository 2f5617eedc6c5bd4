"""ResNet (He et al. 2016), as v1.5 with a zero-initialised residual, and RegNetY (Radosavovic et al. 2020).

One network: a stem, stages of residual blocks of convolutions with batch norm and ReLU, the mean over all places, and
the head. Version 1.5 halves the picture in a block's 3 x 3 convolution, not in the 1 x 1 before it. The last batch norm
of a branch starts at 0 (Goyal et al. 2017, sec. 5.1), so that a block starts as its shortcut. ResNet-C is that with
stem=deep, and ResNet-D with average_shortcut too (He et al. 2019, "Bag of tricks", fig. 2).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import options
from vit_jax.errors import UserError, nearest
from vit_jax.layers.conv import Conv, he_normal_fan_out
from vit_jax.layers.dense import Dense, lecun_normal, zeros
from vit_jax.layers.norm import BatchNorm
from vit_jax.layers.stack import Execution, Stack
from vit_jax.models.family import Family
from vit_jax.options import option
from vit_jax.parallel.mesh import constrain


def _regnet_y(depths, widths, group_width):
  return dict(depths=depths, widths=widths, stem='half', stem_width=32, bottleneck=1, group_width=group_width,
              squeeze_excite=True)


# He et al. 2016, table 1; Radosavovic et al. 2020, fig. 16 (named by millions or billions of multiply-adds).
SIZES = {
    'ResNet-18': dict(block='basic', depths=(2, 2, 2, 2), widths=(64, 128, 256, 512)),
    'ResNet-34': dict(block='basic', depths=(3, 4, 6, 3), widths=(64, 128, 256, 512)),
    'ResNet-50': dict(depths=(3, 4, 6, 3), widths=(256, 512, 1024, 2048)),
    'ResNet-101': dict(depths=(3, 4, 23, 3), widths=(256, 512, 1024, 2048)),
    'ResNet-152': dict(depths=(3, 8, 36, 3), widths=(256, 512, 1024, 2048)),
    'RegNetY-200MF': _regnet_y((1, 1, 4, 7), (24, 56, 152, 368), 8),
    'RegNetY-400MF': _regnet_y((1, 3, 6, 6), (48, 104, 208, 440), 8),
    'RegNetY-600MF': _regnet_y((1, 3, 7, 4), (48, 112, 256, 608), 16),
    'RegNetY-800MF': _regnet_y((1, 3, 8, 2), (64, 128, 320, 768), 16),
    'RegNetY-1.6GF': _regnet_y((2, 6, 17, 2), (48, 120, 336, 888), 24),
    'RegNetY-3.2GF': _regnet_y((2, 5, 13, 1), (72, 216, 576, 1512), 24),
    'RegNetY-4GF': _regnet_y((2, 6, 12, 2), (128, 192, 512, 1088), 64),
    'RegNetY-6.4GF': _regnet_y((2, 7, 14, 2), (144, 288, 576, 1296), 72),
    'RegNetY-8GF': _regnet_y((2, 4, 10, 1), (168, 448, 896, 2016), 56),
    'RegNetY-12GF': _regnet_y((2, 5, 11, 1), (224, 448, 896, 2240), 112),
    'RegNetY-16GF': _regnet_y((2, 4, 11, 1), (224, 448, 1232, 3024), 112),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A ResNet's or RegNetY's shape; `size('ResNet-50')` gives the published ones."""
  # Blocks of each stage; each but the first stage halves the picture.
  depths: tuple[int, ...] = option((3, 4, 6, 3), least=1, most=4096, longest=8)
  # Channels that a stage's blocks give.
  widths: tuple[int, ...] = option((256, 512, 1024, 2048), least=1, most=2**17, longest=8)
  block: Literal['basic', 'bottleneck'] = 'bottleneck'  # two convolutions of 3 x 3; or 1 x 1, 3 x 3, 1 x 1
  bottleneck: int = option(4, least=1, most=2**17)  # a stage's width over the channels of its 3 x 3 convolutions
  # Input channels of a group of the 3 x 3 convolutions, or all where there are fewer; None: all are one group.
  group_width: int | None = option(None, least=1, most=2**17)
  groups: int = option(1, least=1, most=2**17)  # of the 3 x 3 convolutions, as many in each stage (ResNeXt)
  squeeze_excite: bool = False  # channels gated by their means (Hu et al. 2018), after the 3 x 3 convolution
  # 7 x 7 and max pooling, a quarter of the resolution; the same with three convolutions of 3 x 3 in place of the one
  # (deep); 3 x 3, a half, and the first stage halves too; or 3 x 3 at full resolution, for small pictures (He et al.
  # 2016, sec. 4.2).
  stem: Literal['quarter', 'deep', 'half', 'full'] = 'quarter'
  stem_width: int = option(64, least=1, most=2**17)
  deep_widths: tuple[int, ...] = option((32, 32), least=1, most=2**17, longest=2)  # stem=deep: of its first two
  average_shortcut: bool = False  # shortcuts halve by the mean of 2 x 2 places, in place of leaving three out
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of convolutions; parameters and statistics stay float32


def size(name: str) -> dict:
  """The fields of a published shape: size('ResNet-50'), size('RegNetY-16GF')."""
  if name not in SIZES:
    raise UserError(f'ResNet size {name!r}: no such published size{nearest(name, SIZES)}')
  return dict(SIZES[name])


def check(config: Config) -> None:
  """Raises UserError where the shape cannot be built; before anything is compiled. Any image size will do."""
  options.check(config, 'model')
  if len(config.depths) != len(config.widths) or not config.depths:
    raise UserError(f'model.depths={config.depths} and model.widths={config.widths}: one of each for every stage')
  if config.block == 'basic' and (config.group_width or config.groups > 1 or config.squeeze_excite):
    raise UserError('model.block=basic has neither groups nor squeeze-and-excitation: leave out model.group_width, '
                    'model.groups and model.squeeze_excite, or set model.block=bottleneck')
  if config.group_width and config.groups > 1:
    raise UserError(f'model.group_width={config.group_width} and model.groups={config.groups}: give one of them, the '
                    'width of a group (RegNet) or their number (ResNeXt)')
  if len(config.deep_widths) != 2:
    raise UserError(f'model.deep_widths={config.deep_widths}: expected two, of the first convolutions of stem=deep')
  for width in config.widths if config.block == 'bottleneck' else ():
    parts = config.bottleneck * (config.group_width or config.groups)
    if width % config.bottleneck or groups(config, width // config.bottleneck) is None:
      by = ' x model.group_width' if config.group_width else ' x model.groups' if config.groups > 1 else ''
      raise UserError(f'model.widths={config.widths}: {width} must be a multiple of model.bottleneck{by} = {parts}')


def groups(config: Config, inner: int) -> int | None:
  """How many groups `inner` channels of the 3 x 3 convolutions have; None: they make no whole groups."""
  if config.group_width is None:
    return config.groups if inner % config.groups == 0 else None
  size = min(config.group_width, inner)
  return inner // size if inner % size == 0 else None


class ConvNorm(nnx.Module):
  """A convolution and its batch norm."""

  def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs, zero_scale: bool = False,
               dtype=jnp.float32, **kwargs):
    self.conv = Conv(in_channels, out_channels, kernel_size, padding=kernel_size // 2, axis='embed', rngs=rngs,
                     kernel_init=he_normal_fan_out, dtype=dtype, **kwargs)
    self.norm = BatchNorm(out_channels, zero_scale=zero_scale, dtype=dtype)

  def __call__(self, x_BHWC: jax.Array, training: bool) -> jax.Array:
    return self.norm(self.conv(x_BHWC), training)


class SqueezeExcite(nnx.Module):
  """x times a gate for each channel, made from the means of all (Hu et al. 2018, eqs. 2-4)."""

  def __init__(self, width: int, squeezed: int, *, rngs: nnx.Rngs, dtype=jnp.float32):
    self.down = Dense((width,), (squeezed,), ('embed', None), rngs=rngs, kernel_init=lecun_normal, dtype=dtype)
    self.up = Dense((squeezed,), (width,), (None, 'embed'), rngs=rngs, kernel_init=lecun_normal, dtype=dtype)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    gate_BC = jax.nn.sigmoid(self.up(jax.nn.relu(self.down(x_BHWC.mean(axis=(1, 2))))))
    return x_BHWC * gate_BC[:, None, None]


class Block(nnx.Module):
  """relu(shortcut + branch), both projected where the shape changes (He et al. 2016, figs. 2 and 5)."""

  def __init__(self, config: Config, in_width: int, width: int, stride: int, *, rngs: nnx.Rngs):
    dtype, last = jnp.dtype(config.dtype), dict(zero_scale=True)
    inner = width
    if config.block == 'bottleneck':
      inner = width // config.bottleneck
      middle = dict(stride=stride, groups=groups(config, inner))
      shapes = [(in_width, inner, 1, {}), (inner, inner, 3, middle), (inner, width, 1, last)]
    else:
      shapes = [(in_width, width, 3, dict(stride=stride)), (width, width, 3, last)]
    self.convs = nnx.List([ConvNorm(*shape, rngs=rngs, dtype=dtype, **kwargs) for *shape, kwargs in shapes])
    # A quarter of the block's input, not of what is gated: so in the code that the published numbers come from.
    self.squeeze_excite = SqueezeExcite(inner, max(round(in_width / 4), 1), rngs=rngs,
                                        dtype=dtype) if config.squeeze_excite else None
    self.average = config.average_shortcut and stride == 2
    changes, stride_1 = in_width != width or stride != 1, 1 if self.average else stride
    self.shortcut = ConvNorm(in_width, width, 1, stride=stride_1, rngs=rngs, dtype=dtype) if changes else None

  def __call__(self, x_BHWC: jax.Array, training: bool) -> jax.Array:
    y_BHWC = x_BHWC
    for i, conv in enumerate(self.convs):
      y_BHWC = conv(jax.nn.relu(y_BHWC) if i else y_BHWC, training)
      if i == 1 and self.squeeze_excite is not None:
        y_BHWC = self.squeeze_excite(jax.nn.relu(y_BHWC))  # not below 0: the next ReLU changes nothing
    x_BHWC = _mean_pool(x_BHWC) if self.average else x_BHWC
    shortcut = x_BHWC if self.shortcut is None else self.shortcut(x_BHWC, training)
    return constrain(jax.nn.relu(shortcut + y_BHWC), 'batch')


class Stage(nnx.Module):
  """A block that changes the shape, and a stack of those that do not."""

  def __init__(self, config: Config, depth: int, in_width: int, width: int, stride: int, *, rngs: nnx.Rngs):
    stack = lambda depth, *shape: Stack(lambda rngs: Block(config, *shape, rngs=rngs), depth, rngs=rngs)
    self.first = stack(1, in_width, width, stride)
    self.rest = stack(depth - 1, width, width, 1) if depth > 1 else None

  def __call__(self, x_BHWC: jax.Array, training: bool, execution: Execution) -> jax.Array:
    call = lambda block, x_BHWC, _: (block(x_BHWC, training), None)
    for stack in (self.first, self.rest):
      if stack is not None:
        x_BHWC, _ = stack.run(x_BHWC, None, call, execution)
    return x_BHWC


class ResNet(nnx.Module):
  """Stem -> stages -> mean over all places -> logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `check`)."""
    check(config)
    self.config, self.execution = config, execution
    dtype, channels, deep = jnp.dtype(config.dtype), image_shape[2], config.stem == 'deep'
    a, b = config.deep_widths
    self.deep = nnx.List([ConvNorm(channels, a, 3, stride=2, role='input', rngs=rngs, dtype=dtype),
                          ConvNorm(a, b, 3, rngs=rngs, dtype=dtype)]) if deep else None
    kernel_size, stride = {'quarter': (7, 2), 'deep': (3, 1), 'half': (3, 2), 'full': (3, 1)}[config.stem]
    self.stem = ConvNorm(b if deep else channels, config.stem_width, kernel_size, stride=stride,
                         role='hidden' if deep else 'input', rngs=rngs, dtype=dtype)
    self.stages, in_width = nnx.List(), config.stem_width
    for i, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
      self.stages.append(Stage(config, depth, in_width, width, 2 if i or config.stem == 'half' else 1, rngs=rngs))
      in_width = width
    self.head = Dense((in_width,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output', kernel_init=zeros)

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict]:
    """See `models.family.Model`. `capture` can name 'features', a list of [B, H, W, D] after each stage."""
    training = keys_B is not None
    x_BHWC = images_BHWC
    for conv in (*(self.deep or ()), self.stem):
      x_BHWC = jax.nn.relu(conv(x_BHWC, training))
    if self.config.stem in ('quarter', 'deep'):
      x_BHWC = _max_pool(x_BHWC)
    features = []
    for stage in self.stages:
      x_BHWC = stage(x_BHWC, training, self.execution)
      features.append(x_BHWC)
    x_BD = x_BHWC.astype(jnp.float32).mean(axis=(1, 2))
    return self.head(x_BD), {'pre_logits': x_BD, **({'features': features} if 'features' in capture else {})}


def _max_pool(x_BHWC):
  """3 x 3, stride 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
  around = ((0, 0), (1, 1), (1, 1), (0, 0))
  return jax.lax.reduce_window(x_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)


def _mean_pool(x_BHWC):
  """Means of 2 x 2 places, or of those that there are: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
  add = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), 'SAME')
  ones = jnp.ones((1, *x_BHWC.shape[1:3], 1), jnp.float32)
  return (add(x_BHWC.astype(jnp.float32)) / add(ones)).astype(x_BHWC.dtype)


FAMILY = Family(Config, ResNet, SIZES, batch_norm=True)
