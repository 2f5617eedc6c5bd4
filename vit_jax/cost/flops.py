"""FLOP and parameter counts of any family, from abstract shapes.

A multiply-add is 2 FLOPs. All matmuls and convolutions of a program are counted. Element-wise operations, softmax,
norms, augmentation and the optimizer update are not (less than 2% of a ViT's step). XLA's `cost_analysis` is of no use
here, because it counts the body of a scan only once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def count(fn: Callable, *args: Any) -> int:
  """The FLOPs of one call of `fn` with arrays or ShapeDtypeStructs; nothing is computed.

  Recomputation under `jax.checkpoint` is counted, because it is executed. A `cond` counts as its most expensive branch.

  Raises:
    ValueError: there is a matmul in a `while_loop`, whose trip count is unknown.
  """
  return _walk(jax.make_jaxpr(fn)(*args).jaxpr)


def _walk(jaxpr) -> int:
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    return 2 * _size(equation.outvars[0]) * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
  if name == 'conv_general_dilated':
    kernel, rhs_spec = equation.invars[1].aval.shape, params['dimension_numbers'].rhs_spec
    taps = math.prod(kernel[i] for i in rhs_spec[1:])  # (out, in / groups, *spatial)
    # The zeros that the gradient of a strided convolution inserts between elements are not multiplied.
    return 2 * _size(equation.outvars[0]) * taps // math.prod(params['lhs_dilation'])
  inner = [_walk(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  if name == 'while' and sum(inner):
    raise ValueError('a matmul inside a while_loop, whose trip count is unknown: use lax.scan')
  if name == 'scan':
    return params['length'] * sum(inner)
  if name == 'shard_map':  # the shapes in the body are those of one device
    return params['mesh'].size * sum(inner)
  return sum(inner)


def _jaxprs(params):
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, 'jaxpr', item)  # unwraps a ClosedJaxpr
      if hasattr(item, 'eqns'):
        yield item


def _size(variable) -> int:
  return math.prod(variable.aval.shape)


def per_example(model, freeze: Callable[[dict], dict] = lambda params: params) -> tuple[int, int]:
  """(forward, training) FLOPs per example of a `models.PureModel` in evaluation mode, without recomputation.

  Training is the forward pass plus the gradients of the parameters that are trained. If all are, that is about three
  times the forward pass, minus the gradient of the input of the first layer. As in published counts, all tokens pass
  through all blocks, even if the program skips those that the classifier does not read (`models.vit`).

  Args:
    model: a `models.PureModel`; what it computes of an example is said by its objective.
    freeze: stops the gradient of the parameters that are not trained (`optimisation.trainable.frozen`).
  """
  forward, loss, example = model.objective.traced(model) if model.objective else _classifier(model)
  inputs = model.param_shapes(), model.stats_shapes(), example
  return count(forward, *inputs), count(jax.grad(lambda params, *rest: loss(freeze(params), *rest)), *inputs)


def _classifier(model):
  """(forward, loss, example) of a family's own model, as those of an objective."""
  forward = lambda params, stats, image: model.apply(params, stats, image, capture=('features',))[0]
  loss = lambda *inputs: jnp.sum(forward(*inputs))
  return forward, loss, jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)


def params(model) -> tuple[int, int]:
  """(total, non-embedding) parameters of a `models.PureModel`; the latter excludes embeddings and the head.

  Both are logged, because the choice changes the exponent of a law (Pearce & Song 2024).
  """
  sizes = jax.tree.leaves(jax.tree.map(lambda p: math.prod(p.shape), model.param_shapes()))
  roles = jax.tree.leaves(model.param_roles())
  return sum(sizes), sum(size for size, role in zip(sizes, roles, strict=True) if role == 'hidden')
