"""Faults of a device for tests and experiments: one bit of one element of its copy of a gradient is flipped."""

import jax
import jax.numpy as jnp

from vit_jax.parallel import rules

BITS = 23  # of a float32's mantissa


def flipped(model, fault):
  """Tampers: one bit of one element of one device's copy is flipped, and the same operations without an effect.

  `fault` maps the traced step to int32 scalars (leaf, device, element, bit); the element is taken modulo its number.
  """
  never = lambda step: step < 0  # the compiler does not know that it is false
  return _tamper(model, fault, lambda step: ~never(step)), _tamper(model, fault, never)


def _tamper(model, fault, active):
  axes = jax.tree.leaves(model.param_axes(), is_leaf=lambda axes: isinstance(axes, tuple))

  def tamper(gradients, step):
    leaves, tree = jax.tree.flatten(gradients)
    specs = tuple(rules.spec(*names) for names in axes)
    leaf, device, element, bit = fault(step)
    on = active(step)

    def here(*parts):
      position = jnp.int32(0)
      for axis in rules.AXES:
        position = position * jax.lax.axis_size(axis) + jax.lax.axis_index(axis)
      out = []
      for i, part in enumerate(parts):
        words = jax.lax.bitcast_convert_type(part, jnp.uint32).reshape(-1)
        hit = (jnp.arange(words.size) == element % words.size) & on & (leaf == i) & (device == position)
        words = jnp.where(hit, words ^ (jnp.uint32(1) << bit.astype(jnp.uint32)), words)
        out.append(jax.lax.bitcast_convert_type(words, jnp.float32).reshape(part.shape))
      return tuple(out)

    return tree.unflatten(jax.shard_map(here, in_specs=specs, out_specs=specs, check_vma=False)(*leaves))

  return tamper


def at_random(leaves, devices):
  """A fault at a place that depends on the step."""
  def fault(step):
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), 4)
    return [jax.random.randint(key, (), 0, most) for key, most in zip(keys, (leaves, devices, 2**30, BITS))]
  return fault
