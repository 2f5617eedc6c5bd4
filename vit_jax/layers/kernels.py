"""What computes attention: kernels of softmax attention, and the kinds of attention that a model can have.

All have the signature of `attention.attend`:
(q [B, T, H, K], k and v [B, S, H, K], base_head_dim, bias [W, H or 1, T, S] or None, queries)
-> (y [B, Q, H, K], weights [B, H, Q, S] or None).

A kernel is an entry of KERNELS, and system.execution.attention_kernel is its key, 'auto', or package.module:NAME of one
of yours. It changes how softmax attention is computed, not what it computes. A kind is an entry of KINDS, and
model.attention is its key. (`causal` is the kind of text, and no option of a model of pictures.)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vit_jax import plugins
from vit_jax.errors import UserError, nearest
from vit_jax.layers import cudnn, row_attention, splash
from vit_jax.layers.attention import OfProduct, attend, causal_attend
from vit_jax.layers.cheaper_attention import linear_attention, local_attention
from vit_jax.layers.stack import ATTENDED
from vit_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Request:
  """What a model needs of a kernel."""
  kind: str = 'full'  # a key of KINDS
  relative: bool = False  # biases are added to the logits
  explicit: bool = False  # it runs inside a `shard_map` (`parallel.blocks`)
  dtype: str = 'float32'
  tokens: int = 1
  heads: int = 1
  head_dim: int = 1

  @classmethod
  def of(cls, config: Any, tokens: int, pos_embed: str, blocks: str) -> 'Request':
    """What an encoder of this config needs; its fields are those of `layers.encoder.Encoder`."""
    return cls(config.attention, pos_embed == 'relative', blocks == 'shard_map', jnp.dtype(config.dtype).name, tokens,
               config.num_heads, config.head_dim or config.width // config.num_heads)


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One way to compute softmax attention.

  Attributes:
    attend: see the module.
    what: what it is, as `plan` says it.
    platform: the only one that it runs on; None for any. A kernel of one platform adds no biases to the logits.
    limits: (request) -> why it cannot do that, as the end of a sentence, or None.
    declines: (request) -> why `auto` leaves it alone though it could be used, as the end of a sentence, or None.
  """
  attend: Callable[..., tuple[jax.Array, jax.Array | None]]
  what: str
  platform: str | None = None
  limits: Callable[[Request], str | None] = lambda request: None
  declines: Callable[[Request], str | None] = lambda request: None

  def refuses(self, request: Request, platform: str | None) -> str | None:
    """Why it cannot do that, as the end of a sentence, or None.

    The platform is 'cpu', 'gpu' or 'tpu', or None while it is not known. Where it refuses the platform alone,
    `attention.attend` computes.
    """
    if self.platform is None:
      return None
    if request.kind != 'full':
      return f'is for model.attention=full, not for attention={request.kind}'
    if request.relative:
      return 'adds no biases to the logits, which pos_embed=relative has'
    if request.explicit:
      return 'goes with system.execution.blocks=jit, not with shard_map'
    if why := self.limits(request):
      return why
    return None if platform in (None, self.platform) else f'is for {self.platform.upper()}s, not for {platform}'


def _without_weights(attend):
  """A function (q, k, v, base_head_dim) -> y as one with the signature of `attention.attend`."""
  def attend_without(q_BTHK, k_BSHK, v_BSHK, base_head_dim=None, bias_WHTS=None, queries=None):
    assert bias_WHTS is None, 'a model with biases has been refused'
    return attend(q_BTHK, k_BSHK, v_BSHK, base_head_dim)[:, :queries], None
  return attend_without


def _of_all_queries(kernel):
  """As `_without_weights`, of a kernel that computes all queries; a few of them are left to `attention.attend`."""
  whole = _without_weights(kernel)

  def attend_by_kernel(q_BTHK, k_BSHK, v_BSHK, base_head_dim=None, bias_WHTS=None, queries=None):
    some = queries is not None and queries < q_BTHK.shape[1]
    y_BTHK, weights = (attend if some else whole)(q_BTHK, k_BSHK, v_BSHK, base_head_dim, bias_WHTS, queries)
    return checkpoint_name(y_BTHK, ATTENDED), weights
  return attend_by_kernel


def _rows_of_product(qkv_BTHEK, base_head_dim):
  return checkpoint_name(row_attention.of_product(qkv_BTHEK, base_head_dim), ATTENDED)


PLAIN = 'plain'
KERNELS = {
    PLAIN: Kernel(attend, 'by the compiler'),
    'rows': Kernel(OfProduct(_of_all_queries(row_attention.row_attention), _rows_of_product),
                   'a Pallas kernel with whole rows of logits near the cores', 'tpu', row_attention.limits),
    'splash': Kernel(_of_all_queries(splash.splash_attention), 'JAX\'s Pallas kernel, which takes tokens in blocks',
                     'tpu', declines=splash.declines),
    'cudnn': Kernel(_of_all_queries(cudnn.cudnn_attention), 'cuDNN\'s fused kernel', 'gpu', cudnn.limits),
}
# What `auto` tries on each platform; the first that can be used and pays is taken, else PLAIN.
AUTO = {'tpu': ('rows', 'splash'), 'gpu': ('cudnn',), 'cpu': ()}

# (the model's config, the grid of patches, the kernel's attend) -> attend
KINDS: dict[str, Callable[[Any, tuple[int, int], Callable], Callable]] = {
    'full': lambda config, grid, kernel: kernel,
    'local': lambda config, grid, kernel: _without_weights(
        functools.partial(_local, grid=grid, radius=config.attention_radius)),
    'linear': lambda config, grid, kernel: _without_weights(_linear),
    'causal': lambda config, grid, kernel: causal_attend,
}


def kernel(name: str) -> Kernel:
  """The kernel of that name, or package.module:NAME; raises UserError as `plugins.find` does."""
  asked = f'system.execution.attention_kernel={name}'
  if ':' not in name and name not in KERNELS:
    raise UserError(f'{asked}: no such kernel{nearest(name, ["auto", *KERNELS])}')
  return plugins.find('system.execution.attention_kernel', name, KERNELS, lambda found: isinstance(found, Kernel),
                      'a vit_jax.layers.kernels.Kernel')


def check(name: str, request: Request) -> None:
  """Raises UserError for a kernel that does not exist, or that cannot do what the model needs."""
  asked = f'system.execution.attention_kernel={name}'
  if name != 'auto' and (why := kernel(name).refuses(request, None)):
    raise UserError(f'{asked} {why}: set it to auto')


def choose(name: str, request: Request, platform: str) -> tuple[str, str]:
  """(its name, why) for the kernel that a run is given on a platform, where it keeps no attention weights."""
  tried = AUTO[platform] if name == 'auto' else (name,)
  against = []
  for key in tried:
    found = kernel(key)
    if not (why := found.refuses(request, platform) or (name == 'auto' and found.declines(request))):
      return key, found.what
    against.append(f'{key} {why}')
  return PLAIN, '; '.join([KERNELS[PLAIN].what, *against])


def chosen(name: str, request: Request, weights: bool) -> Callable:
  """The `attend` for the function being traced.

  It is `attention.attend` where the attention weights are needed, and where there is no mesh (as where FLOPs are
  counted).
  """
  if weights or jax.sharding.get_abstract_mesh().empty:
    return attend
  return kernel(choose(name, request, mesh_lib.platform())[0]).attend


def _local(q_BTHK, k_BTHK, v_BTHK, base_head_dim, grid, radius):
  return local_attention(q_BTHK, k_BTHK, v_BTHK, grid, radius, base_head_dim)


def _linear(q_BTHK, k_BTHK, v_BTHK, base_head_dim):
  assert base_head_dim is None, 'linear attention has no logits to scale'
  return linear_attention(q_BTHK, k_BTHK, v_BTHK)
