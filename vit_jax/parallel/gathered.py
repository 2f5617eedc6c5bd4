"""Products with parameters that are split as the batch is: they are gathered, and their gradient is scattered."""

import functools
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from vit_jax.parallel.mesh import by_compiler, platform, split_parts
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
  if not by_compiler() or not any(_parts(logical)) or x.shape[0] % split_parts('batch'):
    return fn(x, kernel)
  # Policies of rematerialisation do not see the product inside, so its result has a name.
  return checkpoint_name(_product(fn, logical, x, kernel), PRODUCT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(fn, logical, x, kernel):
  # Without the barrier the compiler undoes before the gather what made the array small to send.
  return fn(x, jax.lax.with_sharding_constraint(jax.lax.optimization_barrier(kernel), _whole(logical)))


def _forward(fn, logical, x, kernel):
  return _product(fn, logical, x, kernel), (x, kernel)


def _backward(fn, logical, kept, gradient):
  x, kernel = kept
  # Without a gradient beside it, this gather would be merged with that of the forward pass, and its result kept. The
  # TPU compiler merges small ones nevertheless, and all of them where both passes gather in a `shard_map`.
  kernel, gradient = jax.lax.optimization_barrier((kernel, gradient))
  if platform() == 'cpu':  # XLA's CPU backend ends the process over bfloat16 sums in a `shard_map` of some mesh axes
    _, vjp = jax.vjp(fn, x, jax.lax.with_sharding_constraint(kernel, _whole(logical)))
    dx, dkernel = vjp(gradient)
    return dx, jax.lax.with_sharding_constraint(dkernel, spec(*logical))
  return _by_parts(fn, logical)(x, kernel, gradient)


def _by_parts(fn, logical):
  """(x, kernel, gradient of the product) -> their gradients, with the collectives written out."""
  rows, parts = mesh_axes('batch'), _parts(logical)
  gathered = [(dim, axes) for dim, axes in enumerate(parts) if axes]
  others = tuple(axis for axis in rows if all(axis not in axes for axes in parts))

  def local(x, kernel, gradient):
    for dim, axes in gathered:
      kernel = jax.lax.all_gather(kernel, axes, axis=dim, tiled=True)
    _, vjp = jax.vjp(fn, x, kernel)
    dx, dkernel = vjp(gradient)
    for dim, axes in gathered:
      dkernel = jax.lax.psum_scatter(dkernel, axes, scatter_dimension=dim, tiled=True)
    return dx, jax.lax.psum(dkernel, others) if others else dkernel

  batch, part = PartitionSpec(rows), PartitionSpec(*(axes or None for axes in parts))
  return jax.shard_map(local, in_specs=(batch, part, batch), out_specs=(batch, part), axis_names=set(rows),
                       check_vma=False)


def _parts(logical):
  """For each dimension, those of the batch's mesh axes that split it."""
  return [tuple(axis for axis in mesh_axes(name) if axis in mesh_axes('batch')) if split_parts(name) > 1 else ()
          for name in logical]


def _whole(logical):
  return spec(*(None if axes else name for axes, name in zip(_parts(logical), logical, strict=True)))


_product.defvjp(_forward, _backward)
