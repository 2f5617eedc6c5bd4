"""Vision Transformer (Dosovitskiy et al. 2021), with the options of the codebases that followed it."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import options
from vit_jax.errors import UserError, nearest
from vit_jax.layers import encoder, noise, pos_embed
from vit_jax.layers.attention import AttentionPool
from vit_jax.layers.dense import Dense, parameter, zeros
from vit_jax.layers.encoder import Encoder
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.patch_embed import ConvStem, PatchEmbed
from vit_jax.layers.resnet_stem import ResNetStem
from vit_jax.layers.stack import Execution
from vit_jax.models.family import Family, Tokens
from vit_jax.options import option

# Width, depth, MLP and heads: Dosovitskiy et al. 2021, table 1 (B, L, H); Touvron et al. 2021, table 1 (Ti, S);
# Zhai et al. 2022, table 2 (g, G); Alabdulmohsin et al. 2023 (So400m).
SIZES = {
    'Ti': dict(width=192, depth=12, mlp_dim=768, num_heads=3),
    'S': dict(width=384, depth=12, mlp_dim=1536, num_heads=6),
    'B': dict(width=768, depth=12, mlp_dim=3072, num_heads=12),
    'L': dict(width=1024, depth=24, mlp_dim=4096, num_heads=16),
    'H': dict(width=1280, depth=32, mlp_dim=5120, num_heads=16),
    'g': dict(width=1408, depth=40, mlp_dim=6144, num_heads=16),
    'G': dict(width=1664, depth=48, mlp_dim=8192, num_heads=16),
    'So400m': dict(width=1152, depth=27, mlp_dim=4304, num_heads=16),
}


# Hybrids: what stands before which ViT (Dosovitskiy et al. 2021, sec. 3.1; Steiner et al. 2022, sec. 3.3).
HYBRIDS = {
    'R26+S/32': dict(stem='resnet', stem_depths=(2, 2, 2, 2)),
    'R50+B/16': dict(stem='resnet', stem_depths=(3, 4, 9)),
    'R50+L/32': dict(stem='resnet', stem_depths=(3, 4, 6, 3)),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A ViT's shape; `size('B/16')` gives the published ones."""
  patch_size: int = option(16, least=1, most=2**14)
  width: int = option(192, least=1, most=2**17)
  depth: int = option(12, least=1, most=4096)
  mlp_dim: int = option(768, least=1, most=2**17)
  num_heads: int = option(3, least=1, most=2**17)
  # None: width / num_heads; a pruned model's heads keep the size that they had.
  head_dim: int | None = option(None, least=1, most=2**17)
  # A linear map of each patch; convolutions of stride 2 (Xiao et al. 2021); or the stages of a ResNet (sec. 3.1).
  stem: Literal['patch', 'conv', 'resnet'] = 'patch'
  # stem=resnet: blocks of each stage.
  stem_depths: tuple[int, ...] = option((2, 2, 2, 2), least=1, most=4096, longest=8)
  # stem=resnet: channels before its stages, which give 4, 8, 16, .. times as many.
  stem_width: int = option(64, least=1, most=2**17)
  pool: Literal['cls', 'gap', 'map'] = 'cls'  # CLS token, mean over patches, or attention pooling
  # rope2d_centred: rope2d with places from -1 to 1 (DINOv3).
  pos_embed: Literal['learned', 'sincos2d', 'rope2d', 'rope2d_centred', 'relative', 'none'] = 'learned'
  # Of pos_embed=rope2d and rope2d_centred: frequencies fall from 1 to nearly 1 / rope_theta.
  rope_theta: float = option(100.0, above=0, most=1e9)
  # full: softmax over all tokens. local: patches at most attention_radius rows and columns away, and what is no patch
  # (Longformer's, Beltagy et al. 2020). linear: Katharopoulos et al. 2020.
  attention: Literal['full', 'local', 'linear'] = 'full'
  attention_radius: int = option(3, least=1, most=2**14)
  global_tokens: int = option(0, most=2**14)  # learned tokens beside the patches (registers: Darcet et al. 2024)
  qkv_bias: bool = True
  # Logits scaled as 1/K, equal to 1/sqrt(K) at this K; None: 1/sqrt(K).
  base_head_dim: int | None = option(None, least=1, most=2**17)
  # Initial scale of the residual branches (Touvron et al. 2021b); None: no scales.
  layer_scale: float | None = option(None, most=1_000)
  dropout: float = option(0.0, below=1)  # after the embedding, in the MLP and on both residual branches
  drop_path: float = option(0.0, below=1)  # stochastic depth of the last block; rises linearly from 0 at the first
  qk_norm: bool = False  # queries and keys of each head are normalised (Dehghani et al. 2023)
  pre_norm: bool = False  # tokens are normalised before the first block, and patches have no bias (CLIP)
  # The last norm: of the tokens before they are pooled, of the pooled ones, or none.
  last_norm: Literal['tokens', 'pooled', 'none'] = 'tokens'
  mlp: Literal['gelu', 'swiglu'] = 'gelu'  # swiglu: gated by SiLU (Shazeer 2020, eq. 6)
  gelu: Literal['exact', 'tanh', 'quick'] = 'exact'  # quick: x sigmoid(1.702 x) (CLIP)
  # Of the norms, as in the original code; transformers' default is 1e-12.
  epsilon: float = option(1e-6, least=1e-20, most=1)
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of matmuls; parameters, norms and softmax stay float32


def size(name: str) -> dict:
  """The fields of a published shape: size('B/16') -> dict(width=768, ..., patch_size=16); size('R26+S/32')."""
  if '+' in name:
    if name not in HYBRIDS:
      raise UserError(f'ViT size {name!r}: no such published hybrid{nearest(name, HYBRIDS)}')
    return size(name.partition('+')[2]) | HYBRIDS[name]
  variant, slash, patch = name.partition('/')
  if variant not in SIZES or not patch.isdigit():
    raise UserError(f'ViT size {name!r}: expected SIZE/PATCH, such as B/16{nearest(variant, SIZES)}')
  return dict(SIZES[variant], patch_size=int(patch))


def check(config: Config, image_shape: tuple[int, int, int]) -> None:
  """Raises UserError where the shape cannot be built; before anything is compiled."""
  height, width, _ = image_shape
  patch = config.patch_size
  options.check(config, 'model')
  most = max(*grid(config, image_shape), Config.attention_radius)
  if config.attention == 'local' and config.attention_radius > most:
    raise UserError(f'model.attention_radius={config.attention_radius}: must be at most {most}, which reaches every '
                    'patch of these pictures, as attention=full does')
  if config.attention != 'full' and config.pos_embed == 'relative':
    raise UserError(f'model.pos_embed=relative: biases logits of attention=full only, not of {config.attention}; '
                    'rope2d goes with all')
  if config.attention == 'linear' and config.base_head_dim is not None:
    raise UserError(f'model.base_head_dim={config.base_head_dim}: attention=linear has no logits that it could scale')
  if config.stem == 'conv':
    _check_conv_stem(config)
  elif config.stem == 'resnet':
    _check_resnet_stem(config)
  elif height % patch or width % patch:
    near = [f'({-(-height // patch) * patch}, {-(-width // patch) * patch})']
    if height >= patch and width >= patch:
      near.insert(0, f'({height // patch * patch}, {width // patch * patch})')
    raise UserError(f'model.patch_size={patch} does not divide the image of {height}x{width}: '
                    f'set data.image_size to {" or ".join(near)}, or another patch size')
  if config.head_dim is None and config.width % config.num_heads:
    raise UserError(f'model.num_heads={config.num_heads} does not divide model.width={config.width}: change one of '
                    'them, or set model.head_dim')
  if config.pos_embed == 'sincos2d' and config.width % 4:
    raise UserError(f'model.width={config.width}: pos_embed=sincos2d needs a multiple of 4')
  if config.pre_norm and config.stem != 'patch':
    raise UserError(f'model.pre_norm=True is for stem=patch, got stem={config.stem}')
  if config.pos_embed in pos_embed.ANGLES and head_dim(config) % 4:
    raise UserError(f'heads of {head_dim(config)}: pos_embed={config.pos_embed} needs a multiple of 4 per head '
                    '(model.head_dim, or model.width / model.num_heads)')


def head_dim(config: Config) -> int:
  """K: the size of a head."""
  return config.head_dim or config.width // config.num_heads


def _check_conv_stem(config):
  patch = config.patch_size
  if patch < 2 or patch & (patch - 1):
    raise UserError(f'model.patch_size={patch}: stem=conv halves the picture again and again, so it needs a power of '
                    'two from 2')
  if config.width % (patch // 2):
    raise UserError(f'model.width={config.width}: stem=conv with patch_size={patch} doubles its channels up to the '
                    f'width, so it needs a multiple of {patch // 2}')


def _check_resnet_stem(config):
  if not config.stem_depths or min(*config.stem_depths, config.stem_width) < 1:
    raise UserError(f'model.stem_depths={config.stem_depths}, model.stem_width={config.stem_width}: stem=resnet needs '
                    'a stage, and at least 1 in each')
  if config.stem_width % 32 and config.stem_width > 32:
    raise UserError(f'model.stem_width={config.stem_width}: stem=resnet normalises 32 groups of channels: give a '
                    'multiple of 32, or less than that')
  if config.patch_size != (stride := 2 ** (len(config.stem_depths) + 1)):
    raise UserError(f'model.patch_size={config.patch_size}: {len(config.stem_depths)} stages of stem=resnet make a '
                    f'token of {stride} x {stride} pixels: set {stride}, or other model.stem_depths')


def grid(config: Config, image_shape: tuple[int, int, int]) -> tuple[int, int]:
  """(rows, columns) of patches of a picture."""
  return -(-image_shape[0] // config.patch_size), -(-image_shape[1] // config.patch_size)


def resized(params: dict, config: Config, image_shape: tuple[int, int, int], new_shape: tuple[int, int, int]) -> dict:
  """Parameters that were trained on pictures of one size, for another: learned and relative positions are interpolated.

  Sin-cos and rotary positions have no parameters; they are computed for the grid that there is.
  """
  grids = grid(config, image_shape), grid(config, new_shape)
  if 'pos_embed' in params:
    params = params | {'pos_embed': pos_embed.resized(params['pos_embed'], *grids)}
  blocks = params['encoder']['blocks']
  if 'bias_table' in blocks['attention']:
    table = pos_embed.relative_resized(blocks['attention']['bias_table'], *grids)
    blocks = blocks | {'attention': blocks['attention'] | {'bias_table': table}}
    params = params | {'encoder': params['encoder'] | {'blocks': blocks}}
  return params


class ViT(nnx.Module):
  """Patches -> tokens (+ position, + CLS) -> pre-LN encoder -> pooled features -> logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `check`), and for a kernel that cannot attend so.

    `num_classes` 0: without a head, for objectives that read the tokens.
    """
    check(config, image_shape)
    channels = image_shape[2]
    self.config = config
    self.grid = grid(config, image_shape)
    dtype = jnp.dtype(config.dtype)
    if config.stem == 'resnet':
      self.patch_embed = ResNetStem(config.stem_depths, config.stem_width, channels, config.width, rngs=rngs,
                                    dtype=dtype)
    else:
      embed = ConvStem if config.stem == 'conv' else functools.partial(PatchEmbed, use_bias=not config.pre_norm)
      self.patch_embed = embed(config.patch_size, channels, config.width, rngs=rngs, dtype=dtype)
    tokens = self.grid[0] * self.grid[1]
    # Deviation 1/sqrt(D), as big_vision's `learn`. CLS is a learned vector already and gets no second one.
    position = jax.random.normal(rngs.params(), (tokens, config.width)) / config.width**0.5
    learned = config.pos_embed == 'learned'
    self.pos_embed = parameter(position, (None, 'embed'), 'input', init_power=-0.5) if learned else None
    self.cls = parameter(jnp.zeros(config.width), ('embed',), 'input') if config.pool == 'cls' else None
    self.encoder = Encoder(config, self.grid, config.pos_embed, rngs=rngs, execution=execution)
    norm = lambda: LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.pre_norm = norm() if config.pre_norm else None
    self.norm = norm() if config.last_norm != 'none' else None
    self.attention_pool = AttentionPool(
        config.width, config.mlp_dim, config.num_heads, rngs=rngs, head_dim=config.head_dim,
        base_head_dim=config.base_head_dim, dtype=dtype, gelu=config.gelu,
        epsilon=config.epsilon) if config.pool == 'map' else None
    self.head = Dense((config.width,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output',
                      kernel_init=zeros) if num_classes else None
    self.global_tokens = parameter(0.02 * jax.random.normal(rngs.params(), (config.global_tokens, config.width)),
                                   (None, 'embed'), 'input') if config.global_tokens else None

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict[str, jax.Array]]:
    """See `models.family.Model`.

    `capture` can name what the encoder has (`layers.encoder.CAPTURES`), and 'embedding' [B, T, D], what it reads.
    """
    c = self.config
    x_BTD = self.embed(images_BHWC)
    x_BTD = embedding_BTD = noise.dropout(x_BTD, c.dropout, noise.fold(keys_B, c.depth))
    x_BTD, captured = self.encoder(x_BTD, keys_B, tuple(name for name in capture if name != 'embedding'),
                                   read=len(self._class_tokens()) if c.pool == 'cls' else None)
    if 'embedding' in capture:
      captured['embedding'] = embedding_BTD
    logits_BC, intermediates = self.classify(x_BTD)
    return logits_BC, {**intermediates, **captured}

  @property
  def leading(self) -> int:
    """The number of tokens before the patches."""
    return len(self._class_tokens()) + self.config.global_tokens

  def embed(self, images_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, T, D]: what the encoder reads."""
    x_BTD = self.patch_embed(images_BHWC)
    position = self.pos_embed[...] if self.pos_embed is not None else None
    if self.config.pos_embed == 'sincos2d':
      position = jnp.asarray(pos_embed.sincos2d(self.grid, self.config.width))
    if position is not None:
      x_BTD = x_BTD + position.astype(x_BTD.dtype)[None]
    tokens = [token[...][None] for token in self._class_tokens()]
    if self.global_tokens is not None:
      tokens.append(self.global_tokens[...])
    if tokens:
      tokens_ND = jnp.concatenate(tokens).astype(x_BTD.dtype)
      tokens_BND = jnp.broadcast_to(tokens_ND[None], (x_BTD.shape[0], *tokens_ND.shape))
      x_BTD = jnp.concatenate([tokens_BND, x_BTD], axis=1)
    return x_BTD if self.pre_norm is None else self.pre_norm(x_BTD)

  def _class_tokens(self):
    """The tokens [D] before the global tokens and the patches, which the head reads."""
    return [] if self.cls is None else [self.cls]

  def classify(self, x_BTD: jax.Array, sizes_BT: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(logits [B, C], {'pre_logits', ..}) from the encoder's output, before the last norm; None without a head.

    `sizes_BT`: how many tokens each was merged from; None: one.
    """
    return self._classify(self.norm(x_BTD) if self.config.last_norm == 'tokens' else x_BTD, sizes_BT)

  def _classify(self, x_BTD, sizes_BT):
    x_BD = self._pool(x_BTD, sizes_BT)
    if self.config.last_norm == 'pooled':
      x_BD = self.norm(x_BD)
    return self.head and self.head(x_BD.astype(jnp.float32)), {'pre_logits': x_BD}

  def _pool(self, x_BTD, sizes_BT):
    if self.config.pool == 'cls':
      return x_BTD[:, 0]
    if self.config.pool == 'map':
      return self.attention_pool(x_BTD, None if sizes_BT is None else jnp.log(sizes_BT))
    patches_BTD = x_BTD[:, self.leading:]
    if sizes_BT is None:
      return patches_BTD.mean(axis=1)
    share_BT = sizes_BT[:, self.leading:] / (self.grid[0] * self.grid[1])
    return jnp.einsum('btd,bt->bd', patches_BTD, share_BT.astype(patches_BTD.dtype))


def tokens(config: Config, image_shape: tuple[int, int, int]) -> Tokens:
  """What the encoder reads."""
  return Tokens(grid(config, image_shape), classified=int(config.pool == 'cls'))


def pruned(config: Config, kept: dict[str, int]) -> Config:
  """The config with so many 'heads' and 'mlp' units in every layer; heads keep their size."""
  fields = {'heads': 'num_heads', 'mlp': 'mlp_dim'}
  return dataclasses.replace(config, head_dim=head_dim(config), **{fields[axis]: n for axis, n in kept.items()})


PUBLISHED = ('Ti/16', 'S/16', 'S/32', 'B/16', 'B/32', 'L/16', 'L/32', 'H/14', 'g/14', 'G/14', 'So400m/14', *HYBRIDS)
FAMILY = Family(Config, ViT, {name: size(name) for name in PUBLISHED}, resized, tokens=tokens, pruned=pruned,
                captures=(*encoder.CAPTURES, 'embedding'), honours=('blocks', 'attention_kernel'))
