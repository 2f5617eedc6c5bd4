"""Values of an expression with exact derivatives in its coefficients, by forward differentiation of its syntax tree.

NumPy in float64 and not jax.jvp: the number of fits that are open changes in every iteration of `minimize`, and each
new shape would be compiled anew.
"""

import ast
from collections.abc import Callable

import numpy as np
from scipy import special

# A value and its derivatives, {index of the parameter: derivative}; the arrays broadcast to [R, n].
Sloped = tuple[np.ndarray, dict[int, np.ndarray]]


def sloped(tree: ast.expr, leaf: Callable[[str], Sloped]) -> Sloped:
  """The value of an expression of numbers, names, + - * / ^ and functions, and its derivatives.

  Args:
    tree: see `expression.parse`.
    leaf: maps a name to its value and derivatives: none for a column.
  """
  if isinstance(tree, ast.Constant):
    return np.asarray(tree.value, float), {}
  if isinstance(tree, ast.Name):
    return leaf(tree.id)
  if isinstance(tree, ast.UnaryOp):
    value, slopes = sloped(tree.operand, leaf)
    return (-value, _times(slopes, -1.0)) if isinstance(tree.op, ast.USub) else (value, slopes)
  if isinstance(tree, ast.BinOp):
    return _BINARY[type(tree.op)](sloped(tree.left, leaf), sloped(tree.right, leaf))
  return _CALLS[tree.func.id](*(sloped(argument, leaf) for argument in tree.args))


def _times(slopes, factor):
  return {i: slope * factor for i, slope in slopes.items()}


def _plus(a, b):
  return {i: a[i] + b[i] if i in a and i in b else a.get(i, b.get(i)) for i in a.keys() | b.keys()}


def _add(a, b):
  return a[0] + b[0], _plus(a[1], b[1])


def _subtract(a, b):
  return a[0] - b[0], _plus(a[1], _times(b[1], -1.0))


def _multiply(a, b):
  return a[0] * b[0], _plus(_times(a[1], b[0]), _times(b[1], a[0]))


def _divide(a, b):
  value = a[0] / b[0]
  return value, _plus(_times(a[1], 1 / b[0]), _times(b[1], -value / b[0]))


def _power(a, b):
  value = a[0] ** b[0]
  slopes = _times(a[1], b[0] * a[0] ** (b[0] - 1)) if a[1] else {}
  return value, _plus(slopes, _times(b[1], value * np.log(a[0]))) if b[1] else slopes


def _exp(a):
  value = np.exp(a[0])
  return value, _times(a[1], value)


def _log(a):
  return np.log(a[0]), _times(a[1], 1 / a[0])


def _sqrt(a):
  value = np.sqrt(a[0])
  return value, _times(a[1], 0.5 / value)


def _sigmoid(a):
  value = special.expit(a[0])
  return value, _times(a[1], value * special.expit(-a[0]))


def _chosen(first):
  """The value and derivatives of the argument that min or max chooses."""
  def choose(a, b):
    of_a = first(a[0], b[0])
    return np.where(of_a, a[0], b[0]), _plus(_times(a[1], of_a), _times(b[1], ~of_a))
  return choose


_BINARY = {ast.Add: _add, ast.Sub: _subtract, ast.Mult: _multiply, ast.Div: _divide, ast.Pow: _power}
_CALLS = {'exp': _exp, 'log': _log, 'sqrt': _sqrt, 'sigmoid': _sigmoid, 'min': _chosen(np.less_equal),
          'max': _chosen(np.greater_equal)}
