"""Forms that users write, such as `E + A/N^alpha + B/D^beta`, fitted as the built-in ones are.

The sum is taken apart. A coefficient that stands alone is the irreducible part. One that is a factor of a term and
occurs nowhere else is the term's amplitude: its logarithm is fitted, in units of the size of the term in the middle of
the data, and starts solve for it. A in 1/(1 + A*N^a) is fitted in units of N^-a there. All others start from a grid
(see `start`). N, D and C are params, examples and flops, any other name that is a column is that column, and what is
left are coefficients.
"""

import ast
import collections
import copy
import dataclasses
import difflib
from collections.abc import Collection

import numpy as np
from scipy.stats import qmc

from vit_jax.errors import UserError
from vit_jax.scaling import expression, forms, start
from vit_jax.scaling.forms import Columns, Form
from vit_jax.scaling.slopes import Sloped, sloped

ALIASES = {'N': 'params', 'D': 'examples', 'C': 'flops'}
GRID = 4500  # starts at most, as many as the Chinchilla form has
_ALIKE = 0.8  # similarity of a coefficient's name to a column's above which it is taken for a misspelled column
_SCALES = (1, 1e-3, 1e3, 1e6, 1e9, 1e12)  # of the inputs: (N - 1e5)^a has values for large N, and 1 + N/1e8 varies


@dataclasses.dataclass(frozen=True)
class Term:
  """sign * exp(amplitude) * tree / (tree in the middle of the data), or sign * tree without an amplitude."""
  tree: ast.expr
  sign: float
  amplitude: int | None


def is_written(text: str) -> bool:
  """Whether --form is an expression and not the name of a built-in form."""
  return not text.isidentifier()


def names(text: str, known: Collection[str] = ()) -> list[str]:
  """The names in a form that may be columns, with N, D and C in full.

  Args:
    text: the form.
    known: columns whose names Python would split, such as val/loss.

  Raises:
    UserError: the text is no expression of numbers and names.
  """
  return expression.names(_tree(text, known))


def form(text: str, starts: str, columns: Collection[str]) -> type[Form]:
  """The class of a written form.

  Args:
    text: the form.
    starts: --start (see `start.parse`).
    columns: the columns that are inputs if the form names them.

  Raises:
    UserError: the form cannot be parsed, has no column or no coefficient, or has coefficients that do not matter or
      that no data could tell apart; a name that is nearly that of a column; or --start names what is no coefficient.
  """
  tree = _tree(text, columns)
  found = expression.names(tree)
  inputs = tuple(name for name in found if name in columns)
  coefficients = tuple(name for name in found if name not in columns)
  given = start.parse(starts)
  for name in coefficients:
    _check_name(text, name, given, columns, _place(tree, name))
  for name in given:
    if name not in coefficients:
      what = f'{name} is a column' if ALIASES.get(name, name) in columns else f'{name} is not in --form={text}'
      raise UserError(f'--start={starts}: {what}; coefficients: {", ".join(coefficients)}')
  if not inputs or not coefficients:
    lacking = 'column' if not inputs else 'coefficient'
    raise UserError(f'--form={text}: has no {lacking}; columns: {", ".join(sorted(columns))}, as N, D and C too')
  _check_matters(text, tree, inputs, coefficients)
  terms, offset = _terms(tree, coefficients, given)
  parameters = tuple(_parameter(name, i, terms, offset, start.exponents(tree, set(coefficients)))
                     for i, name in enumerate(coefficients))
  return type('Written', (Written,), {
      'name': text, 'formula': text, 'source': 'written with --form', 'inputs': inputs, 'names': coefficients,
      'labels': coefficients, 'parameters': parameters, 'given': given, 'tree': tree, 'terms': terms, 'offset': offset,
      'exponents': tuple(name for name, p in zip(coefficients, parameters) if p[:3] not in ('off', 'log')),
      'amplitudes': tuple(term.amplitude for term in terms if term.amplitude is not None)})


class Written(Form):
  """A written form, bound to points. The parameters are in the order of the coefficients.

  Attributes:
    tree: the expression.
    terms: what is added to the irreducible part.
    given: {coefficient: what --start says}.
  """
  tree: ast.expr
  terms: tuple[Term, ...]
  given: dict[str, start.Start]

  def __init__(self, columns: Columns, y: np.ndarray):
    self._sizes = start.ranges(self.tree, (float(y.min()), float(y.max())), dict(columns), set(self.names))
    super().__init__(columns, y)
    self._centre()
    self._logs = [self._is_log(parameter) for parameter in self.parameters]
    self._normal = [True] * len(self.terms)
    some = self.start_grid()[:64]
    with np.errstate(all='ignore'):
      sizes = [np.broadcast_to(self._sloped(term.tree, some, self._middle)[0], (len(some), 1)) for term in self.terms]
    self._normal = [bool(np.all(np.isfinite(size) & (size > 0))) for size in sizes]

  def _centre(self):
    """Divides columns by their middle where a coefficient inside terms scales a power of them, everywhere the same."""
    self.terms = tuple(dataclasses.replace(term, tree=copy.deepcopy(term.tree)) for term in self.terms)
    free = lambda name: name in self.names and _is_free(name, self.given)
    count, products = _occurrences(self.tree), collections.defaultdict(list)
    for term in self.terms:
      for name, powers in start.scaled_powers(term.tree, self.names, free):
        products[name].append(powers)
    self._inside = []  # (index of the coefficient, by how much less its logarithm is for an exponent of 1, exponent)
    for name, each in products.items():
      if len(each) == count[name] and len({str([(ast.dump(power), sign) for power, sign in one]) for one in each}) == 1:
        for powers in each:
          units = [(self._divided_by_middle(power), sign, power.right) for power, sign in powers]
        self._inside += [(self.names.index(name), sign * log_middle, exponent) for log_middle, sign, exponent in units]
    scales = {self.names[i] for i, *_ in self._inside}
    self.exponents = tuple(name for name in self.exponents if name not in scales)

  def _divided_by_middle(self, power):
    """Makes base^exponent (base / middle)^exponent, in place; returns the logarithm of the middle."""
    middle = float(np.ravel(sloped(power.left, lambda name: (self._middle[name], {}))[0])[0])
    if not 0 < middle < np.inf:
      return 0.0
    power.left = ast.BinOp(power.left, ast.Div(), ast.Constant(middle))
    return np.log(middle)

  def _units(self, theta):
    """The logarithms [R, k] of the units in which coefficients inside terms are fitted."""
    out = np.zeros((len(theta), len(self.names)))
    for i, log_middle, exponent in self._inside:
      out[:, i] -= log_middle * np.ravel(np.broadcast_to(self._sloped(exponent, theta, {})[0], (len(theta), 1)))
    return out

  def model(self, theta, columns):
    value, jacobian = self._offset_alone(theta, columns)
    for term, normal in zip(self.terms, self._normal):
      part, slopes = self._term(term, normal, theta, columns)
      value += part
      for i, slope in slopes.items():
        jacobian[:, i] += slope
    return value, jacobian

  def natural(self, theta):
    out = np.stack([np.exp(column) if log else column for column, log in zip(theta.T, self._logs)], -1)
    for term, normal in zip(self.terms, self._normal):
      if term.amplitude is not None and normal:
        out[:, term.amplitude] /= np.ravel(np.broadcast_to(self._sloped(term.tree, theta, self._middle)[0],
                                                           (len(theta), 1)))
    return out * np.exp(self._units(theta))

  def theta_of(self, coefficients: dict[str, float]) -> np.ndarray:
    """The parameters [1, p] of coefficients, the inverse of `natural`."""
    value = np.array([[coefficients[name] for name in self.names]], float)
    theta = np.where(self._logs, np.log(np.where(self._logs, value, 1.0)), value)
    theta -= self._units(theta)
    for term, normal in zip(self.terms, self._normal):
      if term.amplitude is not None and normal:
        theta[:, term.amplitude] += np.log(self._sloped(term.tree, theta, self._middle)[0])[0]
    return theta

  def start_grid(self):
    axes = [self._starts(parameter) for parameter in self.parameters]
    if np.prod([len(axis) for axis in axes], dtype=float) <= GRID:
      return forms.grid(*axes)
    points = qmc.Sobol(len(axes), seed=0).random_base2(int(np.log2(GRID)))  # the grid would be too large
    return np.stack([axis[(u * len(axis)).astype(int)] for axis, u in zip(axes, points.T)], -1)

  def starts(self, columns, y, weights):
    theta = self.start_grid()
    if not self.amplitudes:
      return theta
    with np.errstate(all='ignore'):
      rest = y - (theta[:, self.offset, None] if self.offset is not None else 0.0)
      for term in self.terms:
        if term.amplitude is None:
          rest = rest - self._term(term, False, theta, columns)[0]
      basis = self.basis(theta, columns)
      good = np.isfinite(basis).all((1, 2)) & np.isfinite(np.broadcast_to(rest, (len(theta), len(y)))).all(1)
    basis, rest = np.where(good[:, None, None], basis, 1.0), np.where(good[:, None], rest, 1.0)
    sizes = forms.positive_least_squares(basis, rest, weights, 1e-3 * self.y_min)
    theta[:, list(self.amplitudes)] = np.log(sizes)
    return np.clip(theta, self.lower, self.upper)

  @property
  def _middle(self):
    return {name: np.full(1, value) for name, value in self.reference.items()}

  def _term(self, term, normal, theta, columns) -> Sloped:
    value, slopes = self._sloped(term.tree, theta, columns)
    if term.amplitude is None:
      return term.sign * value, {i: term.sign * slope for i, slope in slopes.items()}
    factor = term.sign * np.exp(theta[:, term.amplitude, None])
    if normal:
      middle, of_middle = self._sloped(term.tree, theta, self._middle)
      factor = factor / middle
      slopes = {i: slope - value * of_middle[i] / middle for i, slope in slopes.items()}
    return factor * value, {term.amplitude: factor * value, **{i: factor * slope for i, slope in slopes.items()}}

  def _sloped(self, tree, theta, columns) -> Sloped:
    """The value and derivatives of a part, [R, m] or shapes that broadcast to it."""
    def leaf(name):
      if name in self.names:
        i = self.names.index(name)
        value = np.exp(theta[:, i, None]) if self._logs[i] else theta[:, i, None]
        return value, {i: value if self._logs[i] else np.ones_like(value)}
      return np.atleast_2d(columns[name]), {}
    return sloped(tree, leaf)

  def _is_log(self, parameter):
    """Whether the logarithm of a coefficient is fitted."""
    kind, _, name = parameter.partition('_')
    return kind == 'log' or (kind == 'scale' and self._limits(kind, name)[0] > 0)

  def _limits(self, kind, name):
    """The bounds of a coefficient that is no amplitude."""
    opposed = any(term.sign < 0 for term in self.terms)
    assumed = {'offset': (0.0, self.y_max * (10 if opposed else 1)), 'exponent': forms.EXPONENT_BOUNDS}
    low, high = assumed.get(kind) or start.widened(self._sizes[name])[0]
    given, span = self.given.get(name, start.Start()), high
    low, high = given.low or low, high if given.high is None else given.high  # coefficients are above 0 anyway
    if low >= high and given.high is None:
      high = low + span
    elif low >= high:
      low = high / 1e6 if high > 0 else high - span
    value = low if given.value is None else given.value
    return min(low, value), max(high, value)

  def _bounds(self, parameter, columns):
    kind, _, name = parameter.partition('_')
    if kind == 'log':
      return super()._bounds(parameter, columns)
    bounds = self._limits(kind, name)
    return tuple(np.log(bounds)) if self._is_log(parameter) else bounds

  def _starts(self, parameter):
    kind, _, name = parameter.partition('_')
    if kind == 'log':
      return np.zeros(1)
    given, (low, high) = self.given.get(name, start.Start()), self._limits(kind, name)
    if given.value is not None:
      values = np.array([given.value])
    elif None not in (given.low, given.high):
      values = start.grid_of(low, high, 13)
    elif kind == 'offset':
      above = self.y_max * np.array([1.001, 1.01, 1.03, 1.1, 1.3, 2, 4])
      values = np.concatenate([forms.OFFSETS * self.y_min, above if high > self.y_max else []])
    else:
      values = forms.EXPONENTS if kind == 'exponent' else start.grid_of(*start.widened(self._sizes[name])[1], 8)
    values = np.unique(np.clip(values, low, high))
    values = values if len(values) > 2 or given.value is not None else start.grid_of(low, high, 13)
    return np.log(values) if self._is_log(parameter) else values


def _tree(text, known):
  tree = expression.parse(text, 'form', known)
  for node in ast.walk(tree):
    if isinstance(node, (ast.Compare, ast.BoolOp)) or isinstance(getattr(node, 'op', None), ast.Not) or (
        isinstance(node, ast.Constant) and isinstance(node.value, (str, bool))):
      raise UserError(f'--form={text}: {ast.unparse(node)!r} is not a number ({expression.shown(text, node.at)})')
    if isinstance(node, ast.Name) and node.id in expression.FUNCTIONS and not any(
        isinstance(call, ast.Call) and call.func is node for call in ast.walk(tree)):
      raise UserError(f'--form={text}: {node.id} is a function ({expression.shown(text, node.at)}); expected '
                      f'{node.id}(...)')
  for node in ast.walk(tree):
    if isinstance(node, ast.Name):
      node.id = ALIASES.get(node.id, node.id)
  return tree


def _place(tree, name):
  return next(node.at for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name)


def _check_name(text, name, given, columns, at):
  here = expression.shown(text, at)
  if name in ALIASES.values() or name == 'x':
    flag = '--x=COLUMN' if name == 'x' else f'--columns={name}=NAME'
    raise UserError(f'--form={text}: the points have no column {name} ({here}); {flag} says which one it is')
  close = difflib.get_close_matches(name, columns, 1, _ALIKE)
  if not name.isidentifier() or (close and name not in given):
    means = f" did you mean '{close[0]}'? If {name} is a coefficient, --start={name}>0 says so" if close else ''
    raise UserError(f'--form={text}: unknown column {name} ({here});{means or " columns: " + ", ".join(columns)}')


def _check_matters(text, tree, inputs, coefficients):
  """Raises UserError for coefficients that change nothing, or of which only a combination changes something."""
  slopes = [rows for scale in _SCALES for rows in _some_slopes(tree, inputs, coefficients, scale) if rows.size]
  if not slopes:
    raise UserError(f'--form={text}: has no finite values for positive inputs and coefficients')
  weakest = [(length := np.linalg.norm(rows, axis=1), rows / np.maximum(length, 1e-300)[:, None]) for rows in slopes]
  lengths = np.array([length for length, _ in weakest])
  for name, without in zip(coefficients, (lengths == 0).all(0)):
    if without:
      raise UserError(f'--form={text}: the coefficient {name} does not matter '
                      f'({expression.shown(text, _place(tree, name))}): the form is the same for all its values')
  found = [np.linalg.svd(rows, full_matrices=False) for _, rows in weakest if rows.shape[1] >= len(rows)]
  if found and all(values[-1] < 1e-9 for _, values, _ in found):
    share = np.abs(found[0][0][:, -1])
    alike = [name for name, weight in zip(coefficients, share) if weight > 0.1]
    raise UserError(f'--form={text}: {" and ".join(alike)} cannot be told apart '
                    f'({expression.shown(text, _place(tree, alike[-1]))}): only a combination of them changes the form')


def _some_slopes(tree, inputs, coefficients, scale):
  """The finite derivatives by the coefficients, [coefficients, points], at four random sets of these."""
  random = np.random.default_rng(0)
  for _ in range(4):
    values = {name: scale * np.exp(random.standard_normal(8 * len(coefficients) + 8)) for name in inputs}
    theta = {name: np.exp(0.5 * random.standard_normal()) for name in coefficients}
    leaf = lambda name, values=values, theta=theta: (
        (np.array(theta[name]), {coefficients.index(name): np.ones(1)}) if name in theta
        else (values[name], {}))
    with np.errstate(all='ignore'):
      slopes = sloped(tree, leaf)[1]
      rows = np.array([np.broadcast_to(slopes.get(i, 0.0), len(values[inputs[0]])) for i in range(len(coefficients))])
    yield rows[:, np.isfinite(rows).all(0)]


def _terms(tree, coefficients, given):
  """The terms of a sum, and the index of the coefficient that is the irreducible part."""
  count = _occurrences(tree)
  free = lambda name: name in coefficients and count[name] == 1 and _is_free(name, given)
  terms, offset = [], None
  for node, sign in _addends(tree, 1.0):
    if isinstance(node, ast.Name) and sign > 0 and offset is None and node.id in coefficients and count[node.id] == 1:
      offset = coefficients.index(node.id)
      continue
    above = [factor.id for factor, power in start.factors(node) if power > 0 and isinstance(factor, ast.Name)]
    amplitude = next((name for name in above if free(name)), None)
    if amplitude:
      terms.append(Term(_Without(amplitude).visit(copy.deepcopy(node)), sign, coefficients.index(amplitude)))
    else:
      terms.append(Term(node, sign, None))
  return tuple(terms), offset


def _occurrences(tree):
  return collections.Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _is_free(name, given):
  """Whether --start leaves a coefficient free, but for a sign that it has anyway."""
  return name not in given or given[name] in (start.Start(), start.Start(low=0))


def _addends(node, sign):
  """The terms of a sum with their signs."""
  if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
    yield from _addends(node.left, sign)
    yield from _addends(node.right, sign if isinstance(node.op, ast.Add) else -sign)
  elif isinstance(node, ast.UnaryOp):
    yield from _addends(node.operand, -sign if isinstance(node.op, ast.USub) else sign)
  else:
    yield node, sign


class _Without(ast.NodeTransformer):
  """Replaces a name by 1."""

  def __init__(self, name):
    self.name = name

  def visit_Name(self, node):
    return ast.Constant(1.0) if node.id == self.name else node


def _parameter(name, i, terms, offset, powers):
  """The name of a coefficient's parameter; what stands before _ is its kind."""
  if i == offset:
    return f'offset_{name}'
  if any(term.amplitude == i for term in terms):
    return f'log_{name}'
  return f'exponent_{name}' if name in powers else f'scale_{name}'
