"""Products with parameters that are split as the batch is: they are gathered, and their gradient is scattered."""

import functools
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from vit_jax.parallel.mesh import by_compiler, split_parts
from vit_jax.parallel.rules import mesh_axes, spec

PRODUCT = 'product'  # the name of a product with a gathered parameter, for policies of rematerialisation


def with_gathered(fn: Callable, x: jax.Array, kernel: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
  """`fn(x, kernel)`, a product with a parameter that is made whole along what the batch's mesh axes split.

  The backward pass gathers it again, so that no layer's whole parameter is kept, and its gradient comes back split
  (reduce-scatter). Left to itself the TPU compiler multiplies by one part after the other as they come round (a
  collective matmul), and computes the gradient part by part: for a ViT-B/16 on 16 chips four times the memory traffic.

  Args:
    fn: linear in both.
    x: [B, ...]. Where the batch's devices do not divide B, it is no batch, and the compiler places the product.
    kernel: the parameter.
    logical: its logical axes.
  """
  rows = mesh_axes('batch')
  parts = tuple(tuple(axis for axis in mesh_axes(name) if axis in rows) if split_parts(name) > 1 else ()
                for name in logical)
  if not any(parts) or not by_compiler() or x.shape[0] % split_parts('batch'):
    return fn(x, kernel)
  # Policies of rematerialisation do not see the product inside, so its result has a name.
  whole = spec(*(None if axes else name for axes, name in zip(parts, logical, strict=True)))
  return checkpoint_name(_product(fn, rows, parts, whole, x, kernel), PRODUCT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _product(fn, rows, parts, whole, x, kernel):
  # Without the barrier the compiler undoes before the gather what made the array small to send.
  return fn(x, jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(kernel), whole))


def _forward(fn, rows, parts, whole, x, kernel):
  return _product(fn, rows, parts, whole, x, kernel), (x, kernel)


def _backward(fn, rows, parts, whole, kept, gradient):
  def local(x, kernel, gradient):
    for dim, axes in gathered:
      kernel = jax.lax.all_gather(kernel, axes, axis=dim, tiled=True)
    _, vjp = jax.vjp(fn, x, kernel)
    dx, dkernel = vjp(gradient)
    for dim, axes in gathered:
      dkernel = jax.lax.psum_scatter(dkernel, axes, scatter_dimension=dim, tiled=True)
    return dx, jax.lax.psum(dkernel, rest) if rest else dkernel
  gathered = [(dim, axes) for dim, axes in enumerate(parts) if axes]
  rest = tuple(axis for axis in rows if all(axis not in axes for _, axes in gathered))
  # Without a gradient beside it, this gather would be merged with that of the forward pass, and its result kept. (It is
  # merged, barrier or not, where both gathers are written in a `shard_map`.)
  kernel, gradient = jax.lax.optimization_barrier((kept[1], gradient))
  batch, part = PartitionSpec(rows), PartitionSpec(*(axes or None for axes in parts))
  return jax.shard_map(local, in_specs=(batch, part, batch), out_specs=(batch, part), axis_names=set(rows),
                       check_vma=False)(kept[0], kernel, gradient)


_product.defvjp(_forward, _backward)
