"""The sharding rules: which axes of the mesh each logical axis is split over.

Parameters and activations name their dimensions (logical axes). The rules map these names to the axes of the mesh.
Changing the mesh or the rules changes no model code.
"""

import contextlib
from collections.abc import Iterable

import jax
from jax.sharding import PartitionSpec

from vit_jax.errors import UserError, nearest

AXES = ('data', 'fsdp', 'tensor')  # of the mesh

Rules = tuple[tuple[str, str], ...]  # (logical axis, mesh axis)

DEFAULT: Rules = (
    ('batch', 'data'),  # of activations
    ('batch', 'fsdp'),
    ('tokens', 'tensor'),  # of the residual stream, between sub-blocks
    ('embed', 'fsdp'),  # of parameters
    ('heads', 'tensor'),  # of parameters, and of activations inside attention
    ('mlp', 'tensor'),  # of parameters, and of activations inside the MLP
)

# Part of JAX's cache keys: a function that was traced under other rules is traced again.
_traced = jax.make_user_context(DEFAULT)


def tracing(rules: Rules) -> contextlib.AbstractContextManager:
  """Within it, what is traced is split by these rules."""
  return _traced(rules)


def mesh_axes(name: str | None, rules: Rules | None = None) -> tuple[str, ...]:
  """The mesh axes that a logical axis is split over, outermost first; none for a name that the rules do not have.

  Without `rules`, those of the function being traced.
  """
  rules = _traced.value if rules is None else rules
  return tuple(dict.fromkeys(axis for logical, axis in rules if logical == name))


def spec(*logical: str | None, rules: Rules | None = None) -> PartitionSpec:
  """Logical axes as mesh axes. Of two dimensions on one mesh axis, the first is split and the second is whole."""
  out, taken = [], set()
  for name in logical:
    axes = tuple(axis for axis in mesh_axes(name, rules) if axis not in taken)
    taken.update(axes)
    out.append(axes if len(axes) > 1 else axes[0] if axes else None)
  return PartitionSpec(*out)


def check_axes(rules: Rules) -> None:
  """Raises UserError for a mesh axis that does not exist."""
  for name, axis in rules:
    if axis not in AXES:
      raise UserError(f'system.mesh.rules: {name!r} is split over {axis!r}, and the mesh has no such axis'
                      f'{nearest(axis, AXES)}')


def check_names(rules: Rules, declared: Iterable[str | None]) -> None:
  """Raises UserError for a logical axis that neither the default rules nor a parameter of the model has."""
  known = {name for name, _ in DEFAULT} | {name for name in declared if name}
  for name, _ in rules:
    if name not in known:
      raise UserError(f'system.mesh.rules: {name!r}: no such logical axis{nearest(name, known)}')


def collisions(path: str, logical: tuple[str | None, ...], rules: Rules) -> list[str]:
  """What is wrong with a parameter of these logical axes: each mesh axis that two of its dimensions are split over."""
  first, found = {}, []
  for name in logical:
    for axis in mesh_axes(name, rules):
      if axis in first:
        found.append(f'{path} has the axes {first[axis]!r} and {name!r}, and rules split both over {axis!r}: split one '
                     'of them over another axis, or leave it out')
      first[axis] = name
  return found
