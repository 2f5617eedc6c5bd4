"""The choice of held-out points, on which a law is tested."""

import operator
import re

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling.points import Points, column

_COMPARE = {'>=': operator.ge, '<=': operator.le, '>': operator.gt, '<': operator.lt, '==': operator.eq}
_NUMBER = r'[-+0-9.eE_]+'


def mask(points: Points, spec: str | None) -> np.ndarray:
  """A mask of the points that `spec` holds out, bool [n].

  Args:
    points: n points.
    spec: largest:K (the K largest by x, else by FLOPs or N D, including ties), a comparison such as 'flops>=1e21',
      several comparisons joined by ' or ', or column:NAME (rows where it is 0, false or "test"). None holds out
      nothing.

  Raises:
    UserError: a spec that cannot be parsed, or that holds out none or all of the points.
  """
  if spec is None:
    return np.zeros(len(points), bool)
  if match := re.fullmatch(r'largest:(\d+)', spec):
    out = _largest(points, int(match[1]))
  elif spec.startswith('column:'):
    values = [str(v).strip().lower() for v in column(points, spec.partition(':')[2])]
    out = np.array([v in ('test', '0', '0.0', 'false') for v in values])
  else:
    out = np.any([_compared(points, spec, part) for part in spec.split(' or ')], axis=0)
  if not out.any():
    raise UserError(f'--holdout={spec}: holds out none of the {len(points)} points; expected at least one')
  if out.all():
    raise UserError(f'--holdout={spec}: holds out all {len(points)} points; expected some to fit the law to')
  return out


def _largest(points, k):
  if not 0 < k < len(points):
    raise UserError(f'--holdout=largest:{k}: expected K from 1 to {len(points) - 1} for {len(points)} points')
  size = points.size[1]
  return size >= np.sort(size)[-k]


def _compared(points, spec, part):
  match = re.fullmatch(rf'\s*([^<>=\s]+)\s*(>=|<=|==|>|<)\s*({_NUMBER})\s*', part)
  if not match:
    raise UserError(f"--holdout={spec}: expected largest:K, comparisons such as 'flops>=1e21 or params>=1e9', or "
                    'column:NAME')
  return _COMPARE[match[2]](_values(points, match[1]), _float(spec, match[3]))


def _values(points, name):
  if name in points.columns:
    return points.columns[name]
  if name == points.metric:
    return points.y
  try:
    return np.array(column(points, name), float)
  except ValueError as error:
    raise UserError(f'--holdout: expected a column of numbers, but {name!r} is not ({error})') from error


def _float(spec, text):
  try:
    return float(text)
  except ValueError as error:
    raise UserError(f'--holdout={spec}: expected a number, got {text!r}') from error
