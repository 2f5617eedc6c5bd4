"""Expressions over columns, such as `flops>=1e21 and dataset=='c4'` or `params*examples`: parsed, never run as code.

Allowed are numbers, texts in quotes, column names, + - * / ^ (or **), comparisons, and, or, not, and the functions exp,
log, sqrt, sigmoid, min and max. Names with other characters, such as model.width or val/loss, are recognized where a
column has them.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from vit_jax.errors import UserError, nearest
from vit_jax.scaling.rows import number
from vit_jax.scaling.tables import Row

_COMPARE = {ast.GtE: operator.ge, ast.LtE: operator.le, ast.Gt: operator.gt, ast.Lt: operator.lt,
            ast.Eq: operator.eq, ast.NotEq: operator.ne}
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
               ast.Pow: operator.pow}
FUNCTIONS = {'exp': np.exp, 'log': np.log, 'sqrt': np.sqrt, 'sigmoid': special.expit, 'min': np.minimum,
             'max': np.maximum}
_ARGUMENTS = {'min': 2, 'max': 2}
_ALLOWED = (ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.UnaryOp, ast.BinOp,
            ast.Compare, ast.Call, ast.Constant, ast.Name, ast.Load, ast.Attribute, *_COMPARE, *_ARITHMETIC)
_LONGEST = 2000  # characters; deeper nesting than this allows would exhaust the parser's stack


def parse(text: str, flag: str, known: Iterable[str] = ()) -> ast.expr:
  """The syntax tree of an expression; names that Python would split, such as val/loss, are kept whole if `known`.

  Each node has `at`, the place in the text of its first character.

  Raises:
    UserError: it cannot be parsed, or has something else than what this module's docstring lists; the message shows
      the place.
  """
  code, origin, stand_in = _as_python(text, known)
  try:
    if len(code) > _LONGEST:
      raise ValueError
    tree = ast.parse(code, mode='eval')
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    here = ''
    if isinstance(error, SyntaxError) and code:
      here = f'{error.msg} {shown(text, origin[min(error.offset or len(origin), len(origin)) - 1])}; '
    raise UserError(f'--{flag}={text}: {here}expected an expression such as {_EXAMPLES[flag]}') from error
  for node in ast.walk(tree):
    if hasattr(node, 'col_offset'):  # in bytes
      node.at = origin[len(code.encode()[:node.col_offset].decode())]
  for node in ast.walk(tree):
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
    if not isinstance(node, _ALLOWED) or (isinstance(node, ast.Call) and not (named and not node.keywords and len(
        node.args) == _ARGUMENTS.get(node.func.id, 1))) or (isinstance(node, ast.Constant) and not isinstance(
            node.value, (int, float, str))):
      here = f' ({shown(text, node.at)})' if hasattr(node, 'at') else ''
      raise UserError(f'--{flag}={text}: {ast.unparse(node)!r} is not allowed{here}: expected numbers, columns, '
                      f'+ - * / ^, comparisons, and, or, not, and the functions {", ".join(FUNCTIONS)}')
  return _Rename(stand_in).visit(tree).body


def shown(text: str, at: int) -> str:
  """A place in a text, such as `at character 10: A/N^alpha>>)<< + B`."""
  if at >= len(text.rstrip()):
    return f'at the end: {text.rstrip()[-20:]}>> <<'
  end = at + len(re.match(r'[\w.]*', text[at:])[0] or ' ')
  return f'at character {at + 1}: {text[max(0, at - 20):at]}>>{text[at:end]}<<{text[end:end + 20]}'


def _as_python(text, known):
  """The text in Python's notation, the place in the text of each character of it, and {stand-in: name}.

  The stand-ins are of the names in `known` that Python would split. What is in quotes stays as it is.
  """
  odd = sorted((name for name in known if name and not name.isidentifier()), key=len, reverse=True)
  named = '|'.join(rf'(?<![\w.]){re.escape(name)}(?![\w.])' for name in odd)
  code, origin = '', []
  for part in re.finditer(rf"""(?P<quoted>"[^"]*"|'[^']*')|(?P<name>{named or '(?!)'})|.""", text.rstrip(), re.DOTALL):
    word = f'column_{odd.index(part[0])}_' if part['name'] else {'^': '**'}.get(part[0], part[0])
    if code or not word.isspace():
      word = ' ' if word.isspace() else word
      code, origin = code + word, origin + [part.start()] * len(word)
  return code, [*origin, len(text)], {f'column_{i}_': name for i, name in enumerate(odd)}


_EXAMPLES = {'holdout': "largest:K, column:NAME, or comparisons such as 'flops>=1e21 or dataset==\"c4\"'",
             'where': "'flops>=1e21 and dataset==\"c4\"'", 'x': "'params*examples'",
             'form': "'E + A/N^alpha + B/D^beta'"}


class _Rename(ast.NodeTransformer):
  """Makes a column of several names joined by dots one name, and puts back the names that were replaced."""

  def __init__(self, stand_in):
    self.stand_in = stand_in

  def visit_Name(self, node):
    return self._name(self.stand_in.get(node.id, node.id), node)

  def visit_Attribute(self, node):
    return self._name(ast.unparse(node), node)

  @staticmethod
  def _name(name, node):
    out = ast.Name(name)
    out.at = node.at
    return out

  def visit_Call(self, node):
    node.args = [self.visit(child) for child in node.args]
    return node


def names(tree: ast.expr) -> list[str]:
  """The names in an expression, in order of appearance, without those of functions."""
  called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
  found = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
  return list(dict.fromkeys(node.id for node in sorted(found, key=lambda node: node.at)))


def evaluate(tree: ast.expr, column: Callable[[str], np.ndarray | None], flag: str, known: Iterable[str]) -> np.ndarray:
  """The values of an expression.

  Args:
    tree: see `parse`.
    column: maps a name to an array of numbers or of texts [n]; None for a name that is no column.
    flag: the flag, for messages.
    known: the names of columns, for messages.

  Raises:
    UserError: an unknown name, or texts where numbers are expected.
  """
  return _Values(column, flag, known)(tree)


def where(rows: Sequence[Row], spec: str, flag: str = 'where',
          given: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
  """Which rows an expression is true of, bool [n]. A comparison with a missing number is false.

  Args:
    rows: n rows.
    spec: the expression.
    flag: the flag that it comes from, for messages.
    given: columns that count before those of the rows.
  """
  given = given or {}
  known = sorted({key for row in rows for key in row if not key.startswith('_')} | given.keys())
  tree = parse(spec, flag, known)
  out = evaluate(tree, lambda name: given.get(name, values(rows, name)), flag, known)
  if np.asarray(out).dtype != bool or not np.ndim(out):
    raise UserError(f"--{flag}={spec}: expected comparisons such as 'flops>=1e21 or params>=1e9'"
                    f'{", or largest:K, or column:NAME" if flag == "holdout" else ""}')
  return np.broadcast_to(out, len(rows))


def values(rows: Sequence[Row], name: str) -> np.ndarray | None:
  """A column of rows: numbers (NaN for none) if all that is there is numbers, else texts; None for an unknown one."""
  there = [row.get(name) for row in rows]
  if not any(name in row for row in rows):
    return None
  numbers = [number(value) for value in there]
  if all(found is not None or value in (None, '') for found, value in zip(numbers, there)):
    return np.array([np.nan if found is None else found for found in numbers])
  return np.array(['' if value is None else str(value) for value in there])


class _Values:
  """Evaluates a tree bottom up."""

  def __init__(self, column, flag, known):
    self.column, self.flag, self.known = column, flag, known

  def __call__(self, node):
    return getattr(self, type(node).__name__)(node)

  def Constant(self, node):
    return node.value

  def Name(self, node):
    values = self.column(node.id)
    if values is None:
      raise UserError(f'--{self.flag}: {node.id}: unknown column{nearest(node.id, self.known)}; '
                      f'expected {_EXAMPLES[self.flag]}')
    return values

  def UnaryOp(self, node):
    if isinstance(node.op, ast.Not):
      return ~np.asarray(self(node.operand), bool)
    value = self._number(node.operand)
    return -value if isinstance(node.op, ast.USub) else value

  def BinOp(self, node):
    with np.errstate(all='ignore'):
      return _ARITHMETIC[type(node.op)](self._number(node.left), self._number(node.right))

  def Call(self, node):
    with np.errstate(all='ignore'):
      return FUNCTIONS[node.func.id](*map(self._number, node.args))

  def BoolOp(self, node):
    combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
    return combine.reduce([np.asarray(self(value), bool) for value in node.values])

  def Compare(self, node):
    sides, out = [node.left, *node.comparators], True
    for kind, left, right in zip(node.ops, sides, sides[1:]):
      out = out & self._compared(type(kind), left, right)
    return out

  def _compared(self, kind, left, right):
    if kind in (ast.Eq, ast.NotEq):
      a, b = self._side(left, right), self._side(right, left)
      if _is_text(a) or _is_text(b):
        a, b = _as_text(a), _as_text(b)
      return _COMPARE[kind](a, b)
    with np.errstate(invalid='ignore'):
      return _COMPARE[kind](self._number(left), self._number(right))

  def _side(self, node, other):
    """A side of an equation. A bare word beside a column of texts is a text: dataset==c4."""
    if isinstance(node, ast.Name) and self.column(node.id) is None and _is_text(self(other)):
      return node.id
    return self(node)

  def _number(self, node):
    value = self(node)
    if _is_text(value):
      wrong = str(np.ravel(value)[0])
      raise UserError(f'--{self.flag}: expected numbers, but {ast.unparse(node)!r} is text, such as {wrong!r}')
    return np.asarray(value, float)


def _is_text(value: Any) -> bool:
  return np.asarray(value).dtype.kind == 'U'


def _as_text(value):
  return value if _is_text(value) else np.array([f'{v:g}' for v in np.ravel(value)])
