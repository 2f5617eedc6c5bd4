"""Swin Transformer (Liu et al. 2021): attention inside windows of patches, which every other block shifts.

Swin V2 (Liu et al. 2022b, "Swin Transformer V2") is the same with three options set: cosine, position_bias, post_norm.

Any picture will do: what does not fill a patch, a window or a pair of patches to be merged is padded with zeros. As in
the published code, padding inside a window is attended to, like a patch of zeros.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import options
from vit_jax.errors import UserError, nearest
from vit_jax.layers import noise, pos_embed
from vit_jax.layers.attention import SelfAttention
from vit_jax.layers.dense import Dense, lecun_normal, normal_002, zeros
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.stack import Execution, Stack
from vit_jax.layers.windows import MASKED, Windows
from vit_jax.models.family import Family
from vit_jax.options import option
from vit_jax.parallel.mesh import constrain

# Liu et al. 2021, sec. 3.3; heads of 32.
SIZES = {
    'T': dict(width=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'S': dict(width=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'B': dict(width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    'L': dict(width=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
# Liu et al. 2022b, sec. 3.5, with the smaller of their code's windows for 256 px.
V2 = dict(cosine=True, position_bias='network', post_norm=True, mask=100.0)
SIZES |= {f'V2-{name}': dict(SIZES[name], window_size=8, **V2) for name in 'TSB'}


@dataclasses.dataclass(frozen=True)
class Config:
  """A Swin Transformer's shape; `size('T')` gives the published ones."""
  patch_size: int = option(4, least=1, most=2**14)
  # Of the first stage; each further stage halves the picture and doubles the width.
  width: int = option(96, least=1, most=2**17)
  # Blocks of each stage, in pairs: plain windows, shifted windows.
  depths: tuple[int, ...] = option((2, 2, 6, 2), least=1, most=4096, longest=8)
  num_heads: tuple[int, ...] = option((3, 6, 12, 24), least=1, most=2**17, longest=8)
  # Patches, at most; a smaller picture is one window, which nothing shifts.
  window_size: int = option(7, least=1, most=2**14)
  mlp_ratio: int = option(4, least=1, most=1_024)  # of the MLPs' width to the stage's
  # Logits scaled as 1/K, equal to 1/sqrt(K) at this K; None: 1/sqrt(K).
  base_head_dim: int | None = option(None, least=1, most=2**17)
  cosine: bool = False  # logits are cosines of queries and keys, times a learned number of each head (Swin V2)
  # Biases of relative places are learned, or made by a small network of the logarithms of the places (Swin V2).
  position_bias: Literal['table', 'network'] = 'table'
  # position_bias=network: the window, in patches, that each stage was trained with, where window_size is another one;
  # (): that of the stage. It is the network's unit of length.
  trained_windows: tuple[int, ...] = option((), least=1, most=2**14, longest=8)
  post_norm: bool = False  # norms end the residual branches, and the merging of patches, in place of beginning them
  # Subtracted from the logits of patches that meet in a window only because the shift goes round the edge.
  mask: float = option(1e9, least=1, most=1e9)
  drop_path: float = option(0.0, below=1)  # stochastic depth of the last block; rises linearly from 0 at the first
  epsilon: float = option(1e-5, least=1e-20, most=1)  # of the norms, as in the published code
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of matmuls; parameters, norms and softmax stay float32


def size(name: str) -> dict:
  """The fields of a published shape: size('T')."""
  if name not in SIZES:
    raise UserError(f'Swin size {name!r}: no such published size{nearest(name, SIZES)}')
  return dict(SIZES[name])


def check(config: Config) -> None:
  """Raises UserError where the shape cannot be built; before anything is compiled."""
  options.check(config, 'model')
  if len(config.depths) != len(config.num_heads) or not config.depths:
    raise UserError(f'model.depths={config.depths} and model.num_heads={config.num_heads}: one of each for every stage')
  if odd := [depth for depth in config.depths if depth % 2]:
    raise UserError(f'model.depths={config.depths}: {odd[0]} is odd; blocks come in pairs, one of which shifts windows')
  if config.cosine and config.base_head_dim is not None:
    raise UserError(f'model.base_head_dim={config.base_head_dim}: cosines do not grow with the width of a head: leave '
                    'it out, or set model.cosine=False')
  if config.trained_windows and (config.position_bias == 'table' or len(config.trained_windows) != len(config.depths)):
    raise UserError(f'model.trained_windows={config.trained_windows}: one for every stage, with '
                    f'model.position_bias=network; got {len(config.depths)} stages and {config.position_bias}')
  for stage, heads in enumerate(config.num_heads):
    if (config.width << stage) % heads:
      raise UserError(f'model.num_heads={config.num_heads}: {heads} does not divide the width of its stage, '
                      f'{config.width << stage}')


def windows(grid: tuple[int, int], window_size: int) -> tuple[Windows, Windows]:
  """Plain and shifted windows of a grid. Where one window spans the grid, it is as small as the grid and stays."""
  window = tuple(min(window_size, size) for size in grid)
  shift = tuple(window_size // 2 if size > window_size else 0 for size in grid)
  return Windows(grid, window), Windows(grid, window, shift)


def grids(config: Config, image_shape: tuple[int, int, int]) -> list[tuple[int, int]]:
  """(rows, columns) of patches in each stage."""
  grid = tuple(-(-size // config.patch_size) for size in image_shape[:2])
  return [tuple(-(-size // (1 << stage)) for size in grid) for stage in range(len(config.depths))]


def resized(params: dict, config: Config, image_shape: tuple[int, int, int], new_shape: tuple[int, int, int]) -> dict:
  """Parameters that were trained on pictures of one size, for another.

  Where the windows are of another size, the tables of relative places are interpolated (Liu et al. 2021, sec. 4.1).
  A network makes them for any window.
  """
  if config.position_bias == 'network':
    return params
  stages = dict(params['stages'])
  for stage, pair in enumerate(zip(grids(config, image_shape), grids(config, new_shape), strict=True)):
    cut = [windows(grid, config.window_size)[0].window for grid in pair]
    blocks = {i: block | {'bias_table': pos_embed.relative_resized(block['bias_table'], *cut)}
              for i, block in stages[stage]['blocks']['blocks'].items()}
    stages[stage] = {'blocks': {'blocks': blocks}}
  return params | {'stages': stages}


@functools.cache
def shift_mask(cut: Windows, mask: float = -MASKED) -> np.ndarray | None:
  """[N, T, T], added to the logits: -mask for patches that meet in a window only because the shift goes round the edge.

  None where nothing is shifted (Liu et al. 2021, sec. 3.2 and fig. 4).
  """
  if not any(cut.shift):
    return None
  regions = []  # along each side: whole windows, the last one's part that was there, the part that came round
  for size, window, shift in zip(cut.padded, cut.window, cut.shift):
    place = np.arange(size)
    regions.append((place >= size - window).astype(int) + (place >= size - shift))
  (h, w), (a, b) = cut.padded, cut.window
  region = (3 * regions[0][:, None] + regions[1]).reshape(h // a, a, w // b, b).transpose(0, 2, 1, 3).reshape(-1, a * b)
  return np.where(region[:, :, None] == region[:, None, :], 0, -mask).astype(np.float32)


class Block(nnx.Module):
  """Pre-LN: x + windowed attention(norm(x)), then x + MLP(norm(x)) (Liu et al. 2021, eq. 3).

  With post_norm x + norm(windowed attention(x)), then x + norm(MLP(x)) (Liu et al. 2022b, fig. 1).
  """

  def __init__(self, config: Config, width: int, num_heads: int, window: tuple[int, int], unit: tuple[int, int], *,
               rngs: nnx.Rngs):
    dtype, network = jnp.dtype(config.dtype), config.position_bias == 'network'
    norm = functools.partial(LayerNorm, width, zero_scale=config.post_norm, dtype=dtype, epsilon=config.epsilon)
    self.norm1 = norm()
    self.attention = SelfAttention(width, num_heads, rngs=rngs, base_head_dim=config.base_head_dim,
                                   cosine=config.cosine, kernel_init=normal_002, dtype=dtype)
    self.bias_table = None if network else pos_embed.relative_table(window, num_heads, rngs=rngs)
    self.bias_network = pos_embed.BiasNetwork(num_heads, rngs=rngs) if network else None
    self.norm2 = norm()
    self.mlp = Mlp(width, config.mlp_ratio * width, rngs=rngs, kernel_init=normal_002, bias_init=None, dtype=dtype)
    self.unit, self.mask, self.post_norm = unit, config.mask, config.post_norm

  def __call__(self, x_BHWD: jax.Array, cut: Windows, drop_path: jax.Array | None,
               keys_B: jax.Array | None) -> jax.Array:
    attend = lambda x_BHWD: cut.join(self.attention(cut.split(x_BHWD), bias_WHTT=self._bias(cut))[0])
    x_BHWD = x_BHWD + _dropped(self._branch(attend, self.norm1, x_BHWD), drop_path, noise.fold(keys_B, 0))
    b, *_, d = x_BHWD.shape
    mlp = lambda x_BHWD: self.mlp(x_BHWD.reshape(b, -1, d)).reshape(x_BHWD.shape)
    y_BHWD = self._branch(mlp, self.norm2, x_BHWD)
    return constrain(x_BHWD + _dropped(y_BHWD, drop_path, noise.fold(keys_B, 1)), 'batch')

  def _branch(self, function, norm, x_BHWD):
    return norm(function(x_BHWD)) if self.post_norm else function(norm(x_BHWD))

  def _bias(self, cut):
    """[N or 1, H, T, T]: the relative position bias of each head, and where patches must not see each other."""
    table_RH = (self.bias_table[...] if self.bias_network is None else
                self.bias_network(pos_embed.log_places(cut.window, self.unit)))
    bias_HTT = pos_embed.relative_bias(table_RH, cut.window)
    mask_NTT = shift_mask(cut, self.mask)
    return bias_HTT[None] if mask_NTT is None else bias_HTT[None] + mask_NTT[:, None]


def _dropped(y, drop_path, keys_B):
  return y if drop_path is None else noise.drop_path(y, drop_path, keys_B)


class Pair(nnx.Module):
  """A block with plain windows and one with shifted windows: what a stage repeats."""

  def __init__(self, make_block, *, rngs: nnx.Rngs):
    self.blocks = nnx.List([make_block(rngs), make_block(rngs)])

  def __call__(self, x_BHWD: jax.Array, cuts: tuple[Windows, Windows], drop_path_2: jax.Array | None,
               keys_B: jax.Array | None) -> jax.Array:
    for i, (block, cut) in enumerate(zip(self.blocks, cuts, strict=True)):
      x_BHWD = block(x_BHWD, cut, None if drop_path_2 is None else drop_path_2[i], noise.fold(keys_B, i))
    return x_BHWD


class Merge(nnx.Module):
  """Each 2 x 2 patches become one of twice the width (Liu et al. 2021, sec. 3.1)."""

  def __init__(self, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32, epsilon: float = 1e-5, post_norm: bool = False):
    self.norm = LayerNorm((2 if post_norm else 4) * width, dtype=dtype, epsilon=epsilon)
    self.proj = Dense((4 * width,), (2 * width,), (None, 'embed'), rngs=rngs, use_bias=False,
                      kernel_init=normal_002, dtype=dtype)
    self.post_norm = post_norm

  def __call__(self, x_BHWD: jax.Array) -> jax.Array:
    """[B, H, W, D] -> [B, ceil(H/2), ceil(W/2), 2D]."""
    x = _gather(x_BHWD, 2, by_column=True)
    return self.norm(self.proj(x)) if self.post_norm else self.proj(self.norm(x))


class Swin(nnx.Module):
  """Patches -> stages of blocks, between which patches are merged -> norm -> mean over all patches -> logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `check`)."""
    check(config)
    self.config, self.execution = config, execution
    dtype, width, channels = jnp.dtype(config.dtype), config.width, image_shape[2]
    self.patch_embed = Dense((config.patch_size**2 * channels,), (width,), (None, 'embed'), rngs=rngs, role='input',
                             kernel_init=lecun_normal, dtype=dtype)
    self.patch_norm = LayerNorm(width, dtype=dtype, epsilon=config.epsilon)
    self.stages, self.merges, cuts = nnx.List(), nnx.List(), []
    shapes = zip(config.depths, config.num_heads, grids(config, image_shape), strict=True)
    for i, (depth, heads, grid) in enumerate(shapes):
      if i:
        self.merges.append(Merge(width, rngs=rngs, dtype=dtype, epsilon=config.epsilon, post_norm=config.post_norm))
        width *= 2
      cuts.append(windows(grid, config.window_size))
      window = cuts[-1][0].window
      unit = (config.trained_windows[i],) * 2 if config.trained_windows else window
      block = functools.partial(_block, config, width, heads, window, unit)
      self.stages.append(Stack(lambda rngs, block=block: Pair(block, rngs=rngs), depth // 2, rngs=rngs))
    self.cuts = tuple(cuts)
    self.norm = LayerNorm(width, dtype=dtype, epsilon=config.epsilon)
    self.head = Dense((width,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output', kernel_init=zeros)

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict]:
    """See `models.family.Model`. `capture` can name 'features', a list of [B, H, W, D] after each stage."""
    c, pairs = self.config, sum(self.config.depths) // 2
    layers = {'index': np.arange(pairs)}
    if c.drop_path:
      layers['drop_path'] = np.linspace(0, c.drop_path, 2 * pairs, dtype=np.float32).reshape(-1, 2)
    x_BHWD, features, first = self.patch_norm(self.patch_embed(_gather(images_BHWC, c.patch_size))), [], 0
    for i, (stage, cuts) in enumerate(zip(self.stages, self.cuts, strict=True)):

      def call(pair, x_BHWD, layer, cuts=cuts):
        return pair(x_BHWD, cuts, layer.get('drop_path'), noise.fold(keys_B, layer['index'])), None

      own = {name: values[first:first + stage.depth] for name, values in layers.items()}
      x_BHWD = constrain(self.merges[i - 1](x_BHWD) if i else x_BHWD, 'batch')
      x_BHWD, _ = stage.run(x_BHWD, own, call, self.execution)
      features.append(x_BHWD)
      first += stage.depth
    x_BD = self.norm(x_BHWD).mean(axis=(1, 2))
    return self.head(x_BD.astype(jnp.float32)), {
        'pre_logits': x_BD, **({'features': features} if 'features' in capture else {})}


def _block(config, width, num_heads, window, unit, rngs):
  return Block(config, width, num_heads, window, unit, rngs=rngs)


def _gather(x_BHWC, patch, by_column=False):
  """[B, H, W, C] -> [B, ceil(H/p), ceil(W/p), p p C]: patches, row by row (or, as merging does, column by column)."""
  b, h, w, c = x_BHWC.shape
  x = jnp.pad(x_BHWC, ((0, 0), (0, -h % patch), (0, -w % patch), (0, 0)))
  rows, columns = -(-h // patch), -(-w // patch)
  x = x.reshape(b, rows, patch, columns, patch, c)
  x = x.transpose(0, 1, 3, 4, 2, 5) if by_column else x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, rows, columns, patch * patch * c)


FAMILY = Family(Config, Swin, SIZES, resized)
