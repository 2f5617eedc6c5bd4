"""Bounds and starts of the coefficients of written forms: `--start`, and what is assumed of coefficients without it.

A coefficient in an exponent is like an exponent of the built-in forms. Any other is above 0, and its size is that of
what it is added to, subtracted from or divided by: in (x / d)^c it is a typical x, in sigmoid(k * (x - m)) k is one
over the spread of x. Starts cover a factor of 3 around these sizes, bounds a factor of 10,000.
"""

import ast
import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import expression
from vit_jax.scaling.slopes import sloped

Range = tuple[float, float]
_NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
_ITEM = re.compile(rf'\s*([^\W\d]\w*)\s*(?:=\s*({_NUMBER})\s*\.\.\s*({_NUMBER})|=\s*({_NUMBER})|>=?\s*({_NUMBER})|'
                   rf'<=?\s*({_NUMBER}))\s*')
_BEYOND, _FAR = 3.0, 1e4
_ONE = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Start:
  """What --start says of one coefficient: its bounds, and the only value to start from. None where it says nothing."""
  low: float | None = None
  high: float | None = None
  value: float | None = None


def parse(text: str, flag: str = 'start') -> dict[str, Start]:
  """{coefficient: Start} of a text such as `alpha=0.1..1, E>0, k<5, c=2`.

  `name=low..high` bounds a coefficient on both sides, `name>low` and `name<high` on one, and `name=value` is the one
  value that it starts from. Several items of one coefficient add up.

  Args:
    text: the items.
    flag: the flag, for messages.

  Raises:
    UserError: an item of another kind, or bounds without values between them.
  """
  out: dict[str, Start] = {}
  for item in filter(str.strip, text.split(',')):
    match = _ITEM.fullmatch(item)
    if not match:
      at = text.index(item) + len(item) - len(item.lstrip())
      raise UserError(f'--{flag}={text}: cannot read {expression.shown(text, at)}; expected name=low..high, name>low, '
                      'name<high or name=value, such as alpha=0.1..1,E>0')
    name, *numbers = match.groups()
    low, high, value, above, below = (None if number is None else float(number) for number in numbers)
    old = out.get(name, Start())
    pick = lambda *found: next((v for v in found if v is not None), None)
    new = Start(pick(low, above, old.low), pick(high, below, old.high), pick(value, old.value))
    ends = [v for v in (new.low, new.value, new.high) if v is not None]
    if sorted(ends) != ends or (new.low is not None and new.low == new.high) or not all(map(math.isfinite, ends)):
      between = ' and a start between them' if new.value is not None else ''
      fixed = '; to fix a coefficient, write its value into --form' if flag == 'start' else ''
      raise UserError(f'--{flag}={text}: {name}: expected low < high{between}, got '
                      f'{" .. ".join(f"{v:g}" for v in ends)}{fixed}')
    out[name] = new
  return out


def exponents(tree: ast.expr, coefficients: set[str]) -> set[str]:
  """The coefficients that occur in an exponent."""
  return {node.id for power in ast.walk(tree) if _is_power(power) for node in ast.walk(power.right)
          if isinstance(node, ast.Name) and node.id in coefficients}


def ranges(tree: ast.expr, y: Range, columns: dict[str, np.ndarray], coefficients: set[str]) -> dict[str, Range]:
  """{coefficient: (low, high)}, the size that each coefficient outside exponents is likely to have.

  Args:
    tree: the form.
    y: the lowest and highest value to predict.
    columns: the inputs, {name: [n]}.
    coefficients: the names of the coefficients.
  """
  sizes = _Sizes(columns, coefficients)
  sizes.want(tree, y)
  return sizes.found


def grid_of(low: float, high: float, count: int) -> np.ndarray:
  """Start values between two ends: geometrically spaced above 0, else evenly."""
  return np.geomspace(low, high, count) if low > 0 else np.linspace(low, high, count)


def widened(size: Range) -> tuple[Range, Range]:
  """The bounds and the span of the starts around a likely size."""
  return (size[0] / _FAR, size[1] * _FAR), (size[0] / _BEYOND, size[1] * _BEYOND)


class _Sizes:
  """Walks down a tree with the size that each part should have."""

  def __init__(self, columns, coefficients):
    self.columns, self.coefficients, self.found = columns, coefficients, {}

  def want(self, node: ast.expr, target: Range) -> None:
    if isinstance(node, ast.Name):
      if node.id in self.coefficients:
        self.found.setdefault(node.id, target)
    elif isinstance(node, ast.UnaryOp):
      self.want(node.operand, target)
    elif isinstance(node, ast.Call):
      for argument in node.args:
        self.want(argument, target if node.func.id in ('min', 'max') else _ONE)
    elif _is_power(node):
      self.want(node.left, _ONE)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
      self.want(node.right, _ONE)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
      for side, other in ((node.left, node.right), (node.right, node.left)):
        self.want(side, target if self._free(other) else self._fixed(other) or target)
    elif isinstance(node, ast.BinOp):
      self._product(node, target)

  def _product(self, node, target):
    parts = list(factors(node))
    for k, (factor, power) in enumerate(parts):
      if self._free(factor):
        size = target
        for other, sign in parts[:k] + parts[k + 1:]:
          low, high = self._size(other)
          size = (size[0] / high, size[1] / low) if sign > 0 else (size[0] * low, size[1] * high)
        self.want(factor, size if power > 0 else (1 / size[1], 1 / size[0]))

  def _size(self, node):
    """The size of a factor: of numbers and columns what they are, of column - coefficient the column's spread."""
    if not self._free(node):
      return self._fixed(node) or _ONE
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
      for side in (node.left, node.right):
        if not self._free(side) and (spread := float(np.std(self._value(side)))) > 0:
          return spread, spread
    return _ONE

  def _free(self, node):
    return any(isinstance(part, ast.Name) and part.id in self.coefficients for part in ast.walk(node))

  def _fixed(self, node):
    size = np.abs(self._value(node))
    size = size[np.isfinite(size) & (size > 0)]
    return (float(size.min()), float(size.max())) if size.size else None

  def _value(self, node):
    with np.errstate(all='ignore'):
      return np.atleast_1d(sloped(node, lambda name: (self.columns[name], {}))[0])


def factors(node, power=1):
  """The factors of a product or quotient, with 1 or -1 for above or below the line."""
  if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
    yield from factors(node.left, power)
    yield from factors(node.right, power if isinstance(node.op, ast.Mult) else -power)
  elif isinstance(node, ast.UnaryOp):
    yield from factors(node.operand, power)
  else:
    yield node, power


def scaled_powers(tree: ast.expr, coefficients: Collection[str], free: Callable[[str], bool]
                  ) -> Iterator[tuple[str, list[tuple[ast.BinOp, int]]]]:
  """(a coefficient, [(power, 1 or -1)]) of each product such as A * N^a, wherever it stands in a form.

  The powers are of numbers and columns, with coefficients alone in the exponent. So the size of A depends on a by
  orders of magnitude. A product of the coefficient and value^sign of each power is what the form has.

  Args:
    tree: the form, or a part of it.
    coefficients: the names of all coefficients.
    free: whether a coefficient is one of those to look for.
  """
  inner = lambda node: [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
  parts = list(factors(tree))
  if len(parts) > 1:
    scale = next(((part.id, power) for part, power in parts if isinstance(part, ast.Name) and free(part.id)), None)
    powers = [(part, power) for part, power in parts if _is_power(part) and inner(part.right)
              and set(inner(part.right)) <= set(coefficients) and not set(inner(part.left)) & set(coefficients)]
    if scale and powers:
      yield scale[0], [(part, power * scale[1]) for part, power in powers]
  for part in [part for part, _ in parts] if len(parts) > 1 else ast.iter_child_nodes(tree):
    if isinstance(part, ast.expr):
      yield from scaled_powers(part, coefficients, free)


def _is_power(node):
  """Whether a node is a power of something that varies; 10^(a - b log x) is like exp."""
  return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and any(
      isinstance(part, ast.Name) for part in ast.walk(node.left))
