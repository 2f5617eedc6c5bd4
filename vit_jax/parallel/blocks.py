"""An encoder's sub-blocks (attention, MLP) on a mesh, in sequence-parallel form (Korthikanti et al. 2022, sec. 4.2.2).

Between sub-blocks the tokens of the residual stream [B, T, D] are split over `tensor`, so that norms, dropout and
sums act on a part. A sub-block gathers the tokens, computes with its part of the heads or MLP columns, and the sum of
the parts goes back scattered over the tokens: one all-gather, one reduce-scatter, and nothing else over `tensor`.
(`tensor` stands for the mesh axis of the default rules: see `parallel.rules`.)

There are two ways to write this, equal in result: sharding constraints, from which the compiler places the collectives,
and `shard_map`, where they are explicit. A number of tokens that `tensor` does not divide (197) is padded between
sub-blocks; a sub-block sees the real ones only, so that nothing has to be masked.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import UserError
from vit_jax.parallel.mesh import constrain, split_parts
from vit_jax.parallel.rules import Rules, mesh_axes, spec


def check(rules: Rules, explicit: bool) -> None:
  """Raises UserError for rules by which the explicit sub-blocks cannot be split; before anything is compiled."""
  if not explicit:
    return
  axes = {name: mesh_axes(name, rules) for name in ('tokens', 'heads', 'mlp', 'batch')}
  tokens, heads, mlp, rows = axes.values()
  others = {axis for _, axis in rules} - {*rows, *tokens}
  if not tokens == heads == mlp or len(tokens) != 1 or tokens[0] in rows or others:
    shown = ', '.join(f'{name} over {" x ".join(split) or "nothing"}' for name, split in axes.items())
    raise UserError('system.execution.blocks=shard_map needs system.mesh.rules that split tokens, heads and mlp over '
                    f'one mesh axis, and all else over the axes of the batch: these split {shown}. Set blocks=jit, or '
                    'change the rules')


@dataclasses.dataclass(frozen=True)
class Stream:
  """The residual stream of an encoder, and how its sub-blocks are split.

  Attributes:
    tokens: how many tokens are not padding.
    read: how many of the first tokens what follows reads of a block's output; all, or fewer after the last block.
    explicit: whether the collectives are written out in a `shard_map`, or left to the compiler.
  """
  tokens: int
  read: int
  explicit: bool

  def cut(self, x_BTD: jax.Array) -> tuple[jax.Array, 'Stream']:
    """The stream of those tokens alone that are read."""
    if self.read == self.tokens:
      return x_BTD, self
    return split_tokens(x_BTD[:, :self.read]), dataclasses.replace(self, tokens=self.read)

  def sub_block(self, call: Callable, module: nnx.Module, x_BTD: jax.Array,
                keys_B: jax.Array | None = None) -> tuple[jax.Array, Any]:
    """`call(module, x_BTD, keys_B)` on a split residual stream.

    The module's parameters declare their logical axes. Where a map contracts a split axis, its result is one part of a
    sum: `call` must end in exactly one such map and stay linear after it.

    Args:
      call: -> (y [B, T, D], extra); extra is None or [B, H, ...]. It sees the tokens that are not padding.
      module: on a mesh, with `explicit`, `call` gets each device's part of its parameters along `tensor`.
      x_BTD: as `split_tokens` makes it.
      keys_B: one PRNG key an example, or None.

    Returns:
      y, split as x is, and extra.
    """
    if jax.sharding.get_abstract_mesh().empty or not self.explicit:
      y_BTD, extra = call(module, whole_tokens(x_BTD, self.tokens), keys_B)
      return split_tokens(y_BTD), extra
    return _explicit(call, module, x_BTD, keys_B, self.tokens)


def split_tokens(x_BTD: jax.Array) -> jax.Array:
  """The residual stream as it is split between sub-blocks: [B, T + padding, D], tokens over `tensor`."""
  return constrain(_padded(x_BTD), 'batch', 'tokens')


def whole_tokens(x_BTD: jax.Array, tokens: int) -> jax.Array:
  """The inverse: [B, tokens, D] without the padding, all tokens on each device."""
  return constrain(x_BTD, 'batch')[:, :tokens]


def _explicit(call, module, x_BTD, keys_B, tokens):
  (tensor,) = mesh_axes('tokens')
  graphdef, state = nnx.split(module)
  is_variable = lambda node: isinstance(node, nnx.Variable)
  names = [_names(variable) for variable in jax.tree.leaves(state, is_leaf=is_variable)]
  arrays, tree = jax.tree.flatten(state)

  def local(arrays, x_BTD, keys_B):
    arrays = [_gathered(array, axes, x_BTD.dtype) for array, axes in zip(arrays, names, strict=True)]
    x_BTD = jax.lax.all_gather(x_BTD, tensor, axis=1, tiled=True)[:, :tokens]
    y_BTD, extra = call(nnx.merge(graphdef, jax.tree.unflatten(tree, arrays)), x_BTD, keys_B)
    return jax.lax.psum_scatter(_padded(y_BTD), tensor, scatter_dimension=1, tiled=True), extra

  stream = spec('batch', 'tokens')
  return jax.shard_map(local, in_specs=([spec(*axes) for axes in names], stream, spec('batch')),
                       out_specs=(stream, spec('batch', 'heads')))(arrays, x_BTD, keys_B)


def num_parts(name: str | None) -> int:
  """The number of parts that a logical axis is split into inside a `shard_map` block; 1 elsewhere."""
  mesh, axes = jax.sharding.get_abstract_mesh(), mesh_axes(name)
  inside = axes == mesh_axes('tokens') and set(axes) & set(mesh.manual_axes)
  return math.prod(mesh.shape[axis] for axis in axes) if inside else 1


def own_part(x: jax.Array, name: str | None) -> jax.Array:
  """This device's part of an array that is whole, along its last axis, whose logical name is given."""
  if (count := num_parts(name)) == 1:
    return x
  size = x.shape[-1] // count
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(mesh_axes(name)[0]) * size, size, axis=-1)


def on_first_part(x: jax.Array, contracted: str | None) -> jax.Array:
  """x as it is added to a product over the logical axis `contracted`: zeros on all but one of the devices that the axis
  is split over, because the sum of their products follows."""
  if num_parts(contracted) == 1:
    return x
  return jnp.where(jax.lax.axis_index(mesh_axes(contracted)[0]) == 0, x, jnp.zeros_like(x))


def all_but_gathered(primitive, *_, **__) -> bool:
  """A policy for `jax.checkpoint`: keeps all but gathered arrays (and mere views of them), which are gathered again.

  Otherwise the backward pass would find every layer's parameters and tokens whole on every device.
  """
  return primitive.name not in ('all_gather', 'sharding_constraint', 'convert_element_type', 'reshape', 'transpose',
                                'slice', 'pvary', 'optimization_barrier')


def scattered(primitive, *_, **__) -> bool:
  """A policy for `jax.checkpoint`: keeps what a reduce-scatter brought: smaller than its operand, and costly."""
  return primitive.name == 'reduce_scatter'


def _padded(x_BTD):
  padding = -x_BTD.shape[1] % split_parts('tokens')
  return jnp.pad(x_BTD, ((0, 0), (0, padding), (0, 0))) if padding else x_BTD


def _names(variable):
  """A parameter's logical axes; those of a slice of stacked layers lack the first."""
  return variable.get_metadata('out_sharding')[-variable[...].ndim:]


def _gathered(array, names, dtype):
  """A parameter with what the batch's mesh axes split gathered; it travels in the type that it is used in.

  The gradient comes back the same way: reduce-scattered over these axes, then as float32 summed over the batch's other
  ones. (Left to itself the sum over those would come first, and of the whole.)
  """
  split = {dim: axes for dim, name in enumerate(names) if (axes := mesh_axes(name)) not in ((), mesh_axes('tokens'))}
  if not split:
    return array
  taken = {axis for axes in split.values() for axis in axes}
  if others := tuple(axis for axis in mesh_axes('batch') if axis not in taken):
    array = jax.lax.pcast(array, others, to='varying')
  array = array.astype(dtype)
  for dim, axes in split.items():
    array = jax.lax.all_gather(array, axes if len(axes) > 1 else axes[0], axis=dim, tiled=True)
  return array
