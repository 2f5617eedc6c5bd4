"""An encoder's sub-blocks (attention, MLP) on a mesh, in sequence-parallel form (Korthikanti et al. 2022, sec. 4.2.2).

Between sub-blocks the residual stream [B, T, D] lies with its tokens split over `tensor`, so that norms, dropout and
sums act on a part. A sub-block gathers the tokens, computes with its part of the heads or MLP columns, and the sum of
the parts goes back scattered over the tokens: one all-gather, one reduce-scatter, and nothing else over `tensor`.

There are two ways to say so, equal in result: sharding constraints, from which the compiler places the collectives,
and `shard_map`, where they are written out. A number of tokens that `tensor` does not divide (197) is padded between
sub-blocks; a sub-block sees the real ones only, so that nothing has to be masked.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.parallel.mesh import RULES, constrain, spec

_TENSOR = RULES['tokens']


def split_tokens(x_BTD: jax.Array) -> jax.Array:
  """The residual stream as it lies between sub-blocks: [B, T + padding, D], tokens split over `tensor`."""
  return constrain(_padded(x_BTD), 'batch', 'tokens')


def whole_tokens(x_BTD: jax.Array, tokens: int) -> jax.Array:
  """The inverse: [B, tokens, D] without the padding, all tokens on each device."""
  return constrain(x_BTD, 'batch')[:, :tokens]


def sub_block(call: Callable, module: nnx.Module, x_BTD: jax.Array, keys_B: jax.Array | None = None, *, tokens: int,
              explicit: bool) -> tuple[jax.Array, Any]:
  """`call(module, x_BTD, keys_B)` on a split residual stream.

  The module's parameters declare their logical axes. Where a map contracts a split axis, its result is one part of a
  sum: `call` must end in exactly one such map and stay linear after it.

  Args:
    call: -> (y [B, T, D], extra); extra is None or [B, H, ...]. It sees the first `tokens` tokens.
    module: on a mesh, with `explicit`, it is given to `call` with each device's part of what `tensor` splits.
    x_BTD: as `split_tokens` makes it.
    keys_B: one PRNG key an example, or None.
    tokens: how many tokens are not padding.
    explicit: whether to write the collectives out in a `shard_map`, or to leave them to the compiler.

  Returns:
    y, split as x is, and extra.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or not explicit:
    y_BTD, extra = call(module, whole_tokens(x_BTD, tokens), keys_B)
    return split_tokens(y_BTD), extra

  graphdef, state = nnx.split(module)
  is_variable = lambda node: isinstance(node, nnx.Variable)
  names = [_names(variable) for variable in jax.tree.leaves(state, is_leaf=is_variable)]
  arrays, tree = jax.tree.flatten(state)

  def local(arrays, x_BTD, keys_B):
    arrays = [_gathered(array, axes, x_BTD.dtype) for array, axes in zip(arrays, names, strict=True)]
    x_BTD = jax.lax.all_gather(x_BTD, _TENSOR, axis=1, tiled=True)[:, :tokens]
    y_BTD, extra = call(nnx.merge(graphdef, jax.tree.unflatten(tree, arrays)), x_BTD, keys_B)
    return jax.lax.psum_scatter(_padded(y_BTD), _TENSOR, scatter_dimension=1, tiled=True), extra

  stream = spec('batch', 'tokens')
  return jax.shard_map(local, in_specs=([spec(*axes) for axes in names], stream, spec('batch')),
                       out_specs=(stream, spec('batch', 'heads')))(arrays, x_BTD, keys_B)


def num_parts(name: str | None) -> int:
  """Into how many parts a device of a `shard_map` block sees a logical axis split; 1 elsewhere."""
  mesh, axis = jax.sharding.get_abstract_mesh(), RULES.get(name)
  return mesh.shape[axis] if axis == _TENSOR and axis in mesh.manual_axes else 1


def own_part(x: jax.Array, name: str | None) -> jax.Array:
  """This device's part of an array that is whole, along its last axis, whose logical name is given."""
  if (count := num_parts(name)) == 1:
    return x
  size = x.shape[-1] // count
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(_TENSOR) * size, size, axis=-1)


def on_first_part(x: jax.Array, contracted: str | None) -> jax.Array:
  """What is added to a product over the logical axis `contracted`: zeros on all but one of the devices that it is
  split over, as the sum of their products follows."""
  if num_parts(contracted) == 1:
    return x
  return jnp.where(jax.lax.axis_index(_TENSOR) == 0, x, jnp.zeros_like(x))


def all_but_gathered(primitive, *_, **__) -> bool:
  """A policy for `jax.checkpoint`: keeps all but gathered arrays (and mere views of them), which are gathered again.

  Otherwise the backward pass would find every layer's parameters and tokens whole on every device.
  """
  return primitive.name not in ('all_gather', 'sharding_constraint', 'convert_element_type', 'reshape', 'transpose',
                                'slice', 'pvary', 'optimization_barrier')


def scattered(primitive, *_, **__) -> bool:
  """A policy for `jax.checkpoint`: keeps what a reduce-scatter brought, smaller than its operand and dear to bring."""
  return primitive.name == 'reduce_scatter'


def _padded(x_BTD):
  mesh = jax.sharding.get_abstract_mesh()
  padding = 0 if mesh.empty else -x_BTD.shape[1] % mesh.shape[_TENSOR]
  return jnp.pad(x_BTD, ((0, 0), (0, padding), (0, 0))) if padding else x_BTD


def _names(variable):
  """A parameter's logical axes; those of a slice of stacked layers lack the first."""
  return variable.get_metadata('out_sharding')[-variable[...].ndim:]


def _gathered(array, names, dtype):
  """A parameter with what `fsdp` splits gathered; it travels in the type that it is used in.

  The gradient comes back the same way: reduce-scattered over `fsdp`, then as float32 summed over `data`. (Left to
  itself the sum over `data` would come first, and of the whole.)
  """
  for dim, name in enumerate(names):
    if (axis := RULES.get(name)) not in (None, _TENSOR):
      array = jax.lax.pcast(array, 'data', to='varying').astype(dtype)
      array = jax.lax.all_gather(array, axis, axis=dim, tiled=True)
  return array
