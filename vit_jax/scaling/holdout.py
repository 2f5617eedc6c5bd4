"""The choice of held-out points, on which a law is tested."""

import re

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling.expression import where
from vit_jax.scaling.points import Points, column


def mask(points: Points, spec: str | None, some: bool = True) -> np.ndarray:
  """A mask of the points that `spec` holds out, bool [n].

  Args:
    points: n points.
    spec: largest:K (the K largest by x, else by FLOPs or N D, including ties), column:NAME (rows where it is 0, false
      or "test"), or an expression (see `expression`) such as 'flops>=1e21 or dataset=="c4"'. None holds out nothing.
    some: whether to refuse a spec that holds out none of the points.

  Raises:
    UserError: a spec that cannot be parsed, or that holds out all of the points.
  """
  if spec is None:
    return np.zeros(len(points), bool)
  if match := re.fullmatch(r'largest:(\d+)', spec):
    out = _largest(points, int(match[1]))
  elif spec.startswith('column:'):
    values = [str(v).strip().lower() for v in column(points, spec.partition(':')[2])]
    out = np.array([v in ('test', '0', '0.0', 'false') for v in values])
  else:
    out = where(points.rows, spec, 'holdout', points.columns | {points.metric: points.y})
  if some and not out.any():
    raise UserError(f'--holdout={spec}: holds out none of the {len(points)} points; expected at least one')
  if out.all():
    raise UserError(f'--holdout={spec}: holds out all {len(points)} points; expected some to fit the law to')
  return out


def _largest(points, k):
  if not 0 < k < len(points):
    raise UserError(f'--holdout=largest:{k}: expected K from 1 to {len(points) - 1} for {len(points)} points')
  size = points.size[1]
  return size >= np.sort(size)[-k]
