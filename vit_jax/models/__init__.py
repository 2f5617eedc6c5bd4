"""The model families, and a model as pure functions of plain trees.

What a family provides is in `models.family`.
"""

import copy
import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
from flax import nnx, traverse_util

from vit_jax import plugins
from vit_jax.errors import UserError, nearest
from vit_jax.layers.stack import Execution
from vit_jax.models import convnext, deit, mixer, resnet, swin, vit
from vit_jax.models.family import Family

FAMILIES = {
    'vit': vit.FAMILY,
    'deit': deit.FAMILY,
    'swin': swin.FAMILY,
    'resnet': resnet.FAMILY,
    'convnext': convnext.FAMILY,
    'mixer': mixer.FAMILY,
}


def family(name: str) -> Family:
  """The family of that name, or package.module:NAME; raises UserError as `plugins.find` does."""
  fits = lambda found: isinstance(found, Family)
  return plugins.find('family', name, FAMILIES, fits, 'a vit_jax.models.family.Family', 'model family')


def that_have(attribute: str, what: Any = None) -> str:
  """The names of the families whose attribute is set, or holds `what`, for messages: 'vit and deit'."""
  has = lambda value: bool(value) if what is None else what in value
  return ' and '.join(name for name, family in FAMILIES.items() if has(getattr(family, attribute)))


class PureModel:
  """A Flax module as pure functions: parameters and statistics are nested plain dicts of arrays.

  NNX stops here: everything that is jitted, sharded, saved or packed is a plain tree.
  """

  def __init__(self, name: str, config: Any, image_shape: tuple[int, int, int], num_classes: int,
               execution: Execution = Execution(), objective: Any = None):
    """Builds it without memory: shapes only.

    Args:
      name: of the family.
      config: the family's.
      image_shape: (H, W, C) of the pictures.
      num_classes: of the data.
      execution: how its blocks are run.
      objective: what it is trained for (`objectives.objective`), which may add to the family's model; None: the
        family's classifier.

    Raises:
      UserError: the family refuses the shapes or the execution, or the objective the family.
    """
    self.name, self.family = name, family(name)
    _check_execution(name, execution)
    self._module = name, config, tuple(image_shape), num_classes, execution, objective
    self.graphdef, self._params, self._stats = _shapes(*self._module)
    self.config, self.image_shape, self.num_classes, self.objective = config, image_shape, num_classes, objective

  def init(self, key: jax.Array) -> tuple[dict, dict]:
    """(params, stats) drawn from a PRNG key."""
    _, params, stats = _split(_build(*self._module, nnx.Rngs(params=key)))
    return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

  def apply(self, params: dict, stats: dict, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
            capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict, dict]:
    """(logits [B, C], intermediates, stats); see `models.family.Model`. With keys, the stats are those of this batch.

    It is the training step that averages them (`optimisation.optimizer.average_stats`).

    Raises:
      UserError: an intermediate that the family does not have.
    """
    for wanted in capture:
      if wanted not in self.family.captures:
        raise UserError(f'capture={wanted!r}: {self.name} has no such intermediate'
                        f'{nearest(wanted, self.family.captures)}')
    (logits_BC, intermediates), stats = self.call(params, stats, lambda module: module(images_BHWC, keys_B, capture))
    return logits_BC, intermediates, stats

  def call(self, params: dict, stats: dict, function: Callable[[nnx.Module], Any]) -> tuple[Any, dict]:
    """(what a function of the module returns, the stats after it); see `apply` for these."""
    module = self.module(params, stats)
    out = function(module)
    return out, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

  def module(self, params: dict, stats: dict) -> nnx.Module:
    """The Flax module with these arrays in it."""
    return nnx.merge(self.graphdef, _filled(self._params, params), _filled(self._stats, stats))

  def resting(self, paths: Collection[tuple]) -> 'PureModel':
    """The same model, in which the modules at these paths, such as batch norms, are `frozen`."""
    if not paths:
      return self
    module, model = nnx.merge(self.graphdef, self._params, self._stats), copy.copy(self)
    for path in paths:
      functools.reduce(lambda node, key: node[key] if isinstance(key, int) else getattr(node, key), path,
                       module).frozen = True
    model.graphdef = _split(module)[0]
    return model

  @property
  def tokens(self) -> int | None:
    """The number of tokens that its encoder reads of a picture; None for families without such an encoder."""
    if self.family.tokens is None:
      return None
    tokens = self.family.tokens(self.config, self.image_shape)
    return math.prod(tokens.grid) + tokens.classified + self.config.global_tokens

  def param_shapes(self) -> dict:
    """ShapeDtypeStructs of the parameters, as a nested plain dict."""
    return nnx.to_pure_dict(self._params)

  def stats_shapes(self) -> dict:
    """ShapeDtypeStructs of the statistics; an empty dict for families without."""
    return nnx.to_pure_dict(self._stats)

  def param_axes(self) -> dict:
    """The logical axis names of each parameter: the same nested dict with tuples of names."""
    return self.param_metadata('out_sharding')

  def param_roles(self) -> dict:
    """'input', 'hidden' or 'output' of each parameter: the same nested dict."""
    return self.param_metadata('role')

  def param_metadata(self, name: str) -> dict:
    """What each parameter declares under that name (see `layers.dense.parameter`): the same nested dict."""
    flat = {path: variable.get_metadata(name) for path, variable in nnx.to_flat_state(self._params)}
    return traverse_util.unflatten_dict(flat)


def _check_execution(name, execution):
  """Raises UserError for an option that this family would ignore."""
  for option in ('blocks', 'attention_kernel'):
    value, default = getattr(execution, option), getattr(Execution, option)
    if value != default and option not in family(name).honours:
      raise UserError(f'system.execution.{option}={value} is for {that_have("honours", option)}, not for {name}: '
                      f'set it to {default}')


def _build(name, config, image_shape, num_classes, execution, objective, rngs):
  make = functools.partial(objective.build, family(name)) if objective else family(name).model
  return make(config, image_shape, num_classes, rngs=rngs, execution=execution)


def _split(module):
  return nnx.split(module, nnx.Param, nnx.BatchStat)


@functools.lru_cache
def _shapes(*module):
  """(graph, parameters, statistics) without values. Tracing takes a quarter of a second, and a program asks often."""
  return _split(nnx.eval_shape(lambda: _build(*module, nnx.Rngs(0))))


def _filled(state, values):
  state = jax.tree.map(lambda x: x, state)
  nnx.replace_by_pure_dict(state, values)
  return state
