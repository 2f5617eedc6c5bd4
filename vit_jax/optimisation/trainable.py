"""Training of a part of a model. The rest is frozen: it gets no gradient and has no optimizer state.

Batch norm's statistics are frozen with its parameters: a norm that is frozen normalises with the statistics that it
has, as in evaluation, and they do not move. Otherwise features that no parameter changes would change all the same.
"""

import fnmatch
from collections.abc import Callable

import jax
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.optimisation.optimizer import OptimizerConfig


def trained(config: OptimizerConfig, model: PureModel) -> dict | None:
  """{path: whether it is trained} of each parameter, by `optimizer.train_only`; None: all are trained.

  The parameters of a stack of blocks are stacked arrays, so a stack is trained or frozen as a whole.

  Raises:
    UserError: a pattern matches nothing.
  """
  if not config.train_only:
    return None
  found = set().union(*(matches(pattern, 'train_only', model) for pattern in config.train_only))
  return {path: path in found for path in traverse_util.flatten_dict(model.param_shapes())}


def matches(pattern: str, field: str, model: PureModel) -> set[tuple]:
  """The paths of the parameters whose names match; UserError where there are none, naming the optimizer's field."""
  names = {path: '/'.join(map(str, path)) for path in traverse_util.flatten_dict(model.param_shapes())}
  if not (found := {path for path, name in names.items() if fnmatch.fnmatch(name, pattern)}):
    tops = ', '.join(sorted({f'{path[0]}/*' if len(path) > 1 else str(path[0]) for path in names}))
    raise UserError(f'optimizer.{field}={pattern!r}: matches no parameter of this model; there are {tops}')
  return found


def scaled(config: OptimizerConfig, field: str, model: PureModel) -> dict | None:
  """The factor of each parameter by `optimizer.rates` or `optimizer.decays`, a tree of floats; None: all are 1.

  Raises:
    UserError: a pattern matches nothing.
  """
  if not getattr(config, field):
    return None
  factors = dict.fromkeys(traverse_util.flatten_dict(model.param_shapes()), 1.0)
  for pattern, factor in getattr(config, field):
    factors |= {path: factors[path] * factor for path in matches(pattern, field, model)}
  return traverse_util.unflatten_dict(factors)


def resting(which: dict | None, model: PureModel) -> frozenset[tuple]:
  """The paths of the modules that hold statistics and are frozen: none of their parameters is trained.

  Of a module without parameters, it is those of the nearest module around it that has some.
  """
  if which is None:
    return frozenset()

  def rests(module):
    own = [some for path, some in which.items() if path[:len(module)] == module]
    return not any(own) if own else rests(module[:-1])

  return frozenset(path[:-1] for path in traverse_util.flatten_dict(model.stats_shapes()) if rests(path[:-1]))


def moving(stats: dict, moved: dict, resting: frozenset[tuple]) -> dict:
  """`moved`, in which the statistics of the modules that are `resting` are those of `stats`."""
  if not resting:
    return moved
  before, after = traverse_util.flatten_dict(stats), traverse_util.flatten_dict(moved)
  return traverse_util.unflatten_dict({path: before[path] if path[:-1] in resting else value
                                       for path, value in after.items()})


def freezer(config: OptimizerConfig, model: PureModel) -> Callable[[dict], dict]:
  """Parameters -> the same with `frozen` gradients, by `optimizer.train_only`. Raises as `trained`."""
  which = trained(config, model)
  return lambda params: frozen(params, which)


def select(tree: dict | None, which: dict | None) -> dict | None:
  """The trained part of a tree with the structure of the parameters."""
  if tree is None or which is None:
    return tree
  flat = traverse_util.flatten_dict(tree)
  return traverse_util.unflatten_dict({path: leaf for path, leaf in flat.items() if which[path]})


def merged(tree: dict, part: dict, which: dict | None) -> dict:
  """The tree with its trained part replaced by `part`."""
  if which is None:
    return part
  return traverse_util.unflatten_dict(traverse_util.flatten_dict(tree) | traverse_util.flatten_dict(part))


def frozen(params: dict, which: dict | None) -> dict:
  """The parameters with gradients stopped at those that are not trained, so that no backward pass is made for them."""
  if which is None:
    return params
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({path: leaf if which[path] else jax.lax.stop_gradient(leaf)
                                       for path, leaf in flat.items()})
