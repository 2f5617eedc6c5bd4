"""What computes attention: kernels of softmax attention, and the kinds of attention that a model can have.

All have the signature of `attention.attend`:
(q [B, T, H, K], k and v [B, S, H, K], base_head_dim, bias [W, H or 1, T, S] or None, queries)
-> (y [B, Q, H, K], weights [B, H, Q, S] or None).

A kernel is an entry of KERNELS, and system.execution.attention_kernel is its key. It changes how softmax attention is
computed, not what it computes. A kind is an entry of KINDS, and model.attention is its key.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from vit_jax.errors import UserError, nearest
from vit_jax.layers import splash
from vit_jax.layers.attention import attend
from vit_jax.layers.cheaper_attention import linear_attention, local_attention
from vit_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Request:
  """What a model needs of a kernel."""
  kind: str = 'full'  # a key of KINDS
  relative: bool = False  # biases are added to the logits
  explicit: bool = False  # it runs inside a `shard_map` (`parallel.blocks`)


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One way to compute softmax attention.

  Attributes:
    attend: see the module.
    refuses: (request, platform) -> why it cannot do that, as the end of a sentence, or None. The platform is 'cpu',
      'gpu' or 'tpu', or None while it is not known. Where it refuses the platform alone, `attention.attend` computes.
  """
  attend: Callable[..., tuple[jax.Array, jax.Array | None]]
  refuses: Callable[[Request, str | None], str | None] = lambda request, platform: None


def _without_weights(attend):
  """A function (q, k, v, base_head_dim) -> y as one with the signature of `attention.attend`."""
  def attend_without(q_BTHK, k_BSHK, v_BSHK, base_head_dim=None, bias_WHTS=None, queries=None):
    assert bias_WHTS is None, 'a model with biases has been refused'
    return attend(q_BTHK, k_BSHK, v_BSHK, base_head_dim)[:, :queries], None
  return attend_without


KERNELS = {
    'none': Kernel(attend),
    'splash': Kernel(_without_weights(splash.splash_attention), splash.refuses),
}

# (the model's config, the grid of patches, the kernel's attend) -> attend
KINDS: dict[str, Callable[[Any, tuple[int, int], Callable], Callable]] = {
    'full': lambda config, grid, kernel: kernel,
    'local': lambda config, grid, kernel: _without_weights(
        functools.partial(_local, grid=grid, radius=config.attention_radius)),
    'linear': lambda config, grid, kernel: _without_weights(_linear),
}


def check(name: str, request: Request) -> None:
  """Raises UserError for a kernel that does not exist, or that cannot do what the model needs."""
  asked = f'system.execution.attention_kernel={name}'
  if name not in KERNELS:
    raise UserError(f'{asked}: no such kernel{nearest(name, KERNELS)}')
  if why := KERNELS[name].refuses(request, None):
    raise UserError(f'{asked} {why}')


def chosen(name: str, request: Request, weights: bool) -> Callable:
  """The named kernel's `attend` for the function being traced.

  It is `attention.attend` where the attention weights are needed, where the kernel refuses the platform, and where
  there is no mesh (as where FLOPs are counted).
  """
  traced = not jax.sharding.get_abstract_mesh().empty
  if weights or not traced or KERNELS[name].refuses(request, mesh_lib.platform()):
    return attend
  return KERNELS[name].attend


def _local(q_BTHK, k_BTHK, v_BTHK, base_head_dim, grid, radius):
  return local_attention(q_BTHK, k_BTHK, v_BTHK, grid, radius, base_head_dim)


def _linear(q_BTHK, k_BTHK, v_BTHK, base_head_dim):
  assert base_head_dim is None, 'linear attention has no logits to scale'
  return linear_attention(q_BTHK, k_BTHK, v_BTHK)
