"""FLOPs and parameters, counted on abstract shapes: one counter for every family.

A multiply-add is 2 FLOPs. Matmuls and convolutions are counted, wherever they stand in the program; element-wise work,
softmax, norms, augmentation and the optimizer's update are left out (under 2% of a ViT's step). XLA's own
`cost_analysis` counts a scanned layer once, so it cannot be used for this.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def count(fn: Callable, *args: Any) -> int:
  """FLOPs of one call of `fn` on arrays or ShapeDtypeStructs; nothing is computed.

  Recomputation under `jax.checkpoint` is counted, as it is executed. Of a `cond`, the dearest branch counts.

  Raises:
    ValueError: a matmul inside a `while_loop`, whose trip count no shape tells.
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
    # The zeros that the gradient of a strided convolution puts between its places are not multiplied with.
    return 2 * _size(equation.outvars[0]) * taps // math.prod(params['lhs_dilation'])
  inner = [_walk(jaxpr) for jaxpr in _jaxprs(params)]
  if name == 'cond':
    return max(inner)
  if name == 'while' and sum(inner):
    raise ValueError('a matmul inside a while_loop: its trip count is not known, use lax.scan')
  if name == 'scan':
    return params['length'] * sum(inner)
  if name == 'shard_map':  # the body's shapes are one device's
    return params['mesh'].size * sum(inner)
  return sum(inner)


def _jaxprs(params):
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      item = getattr(item, 'jaxpr', item)  # a ClosedJaxpr's inside
      if hasattr(item, 'eqns'):
        yield item


def _size(variable) -> int:
  return math.prod(variable.aval.shape)


def per_example(model, freeze: Callable[[dict], dict] = lambda params: params) -> tuple[int, int]:
  """(forward, training) FLOPs of one example of a `models.PureModel`, evaluation mode, nothing recomputed.

  Training is the forward pass plus the gradients of the parameters that are trained: of all of them close to three
  forwards, less what the first layer saves by not needing a gradient for the picture. As in published counts, all
  tokens pass through all blocks, also where a program leaves out what its classifier does not read (`models.vit`).

  Args:
    model: a `models.PureModel`.
    freeze: stops the gradient of the parameters that are not trained (`optimisation.trainable.frozen`).
  """
  image = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
  forward = lambda params, stats, image: model.apply(params, stats, image, capture=('features',))[0]
  loss = lambda params, *inputs: jnp.sum(forward(freeze(params), *inputs))
  inputs = model.param_shapes(), model.stats_shapes(), image
  return count(forward, *inputs), count(jax.grad(loss), *inputs)


def params(model) -> tuple[int, int]:
  """(all, non-embedding) parameters of a `models.PureModel`: the second leaves out embeddings and the head.

  Which of the two a law uses moves its exponent (Pearce & Song 2024), so both are logged.
  """
  sizes = jax.tree.leaves(jax.tree.map(lambda p: math.prod(p.shape), model.param_shapes()))
  roles = jax.tree.leaves(model.param_roles())
  return sum(sizes), sum(size for size, role in zip(sizes, roles, strict=True) if role == 'hidden')
