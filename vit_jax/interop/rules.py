"""Rules that relate tensors of another program ("theirs") to parameters of this project ("ours"), in both directions.

A rule pairs a name of ours, of a single block (see `layer_names`), with a name of theirs. Letters relate their axes:
`D H 3 K` of ours is `(3 H K) D` of theirs. A single rule thus determines the expected shape of a tensor, how it is read
and how it is written.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Axes:
  """One parameter of ours is one tensor of theirs, or several, stacked along an axis that only ours has.

  Attributes:
    ours: our name, with {i}, {j}, ... in place of numbers.
    our_axes: a letter or number per axis; parentheses group axes that are merged in the array.
    theirs: their names, in which {i} is the same number as in ours and {i1} that number plus one.
    their_axes: their axes, with the same letters in any order.
  """
  ours: str
  our_axes: str
  theirs: tuple[str, ...]
  their_axes: str

  @property
  def names(self) -> tuple[str, ...]:
    return (self.ours,)

  def shapes(self, ours: Sequence[tuple[int, ...]], known: Mapping[str, int]) -> list[tuple[int, ...]]:
    """Their shapes, from our shape and the known sizes."""
    sizes = self._sizes(ours[0], known)
    return [tuple(math.prod(sizes[a] for a in group) for group in _groups(self.their_axes))] * len(self.theirs)

  def read(self, theirs: Sequence[np.ndarray], ours: Sequence[tuple[int, ...]], known: Mapping[str, int]) -> list:
    """Our arrays from theirs."""
    sizes, atoms = self._sizes(ours[0], known), _atoms(self.their_axes)
    parts = [x.reshape([sizes[a] for a in atoms]) for x in theirs]
    if (over := self._stack_axis()) is None:
      value, = parts
    else:
      value, atoms = np.stack(parts), [over, *atoms]
    order = [atoms.index(a) for a in _atoms(self.our_axes)]
    return [np.ascontiguousarray(value.transpose(order).reshape(ours[0]))]

  def write(self, ours: Sequence[np.ndarray], known: Mapping[str, int]) -> list[np.ndarray]:
    """Their arrays from ours."""
    sizes, atoms = self._sizes(ours[0].shape, known), _atoms(self.our_axes)
    value = ours[0].reshape([sizes[a] for a in atoms])
    over = self._stack_axis()
    parts = [value] if over is None else list(np.moveaxis(value, atoms.index(over), 0))
    atoms = [a for a in atoms if a != over]
    order = [atoms.index(a) for a in _atoms(self.their_axes)]
    shape, = set(self.shapes([ours[0].shape], known))
    return [np.ascontiguousarray(part.transpose(order).reshape(shape)) for part in parts]

  def _stack_axis(self):
    """The axis of ours along which several tensors of theirs are stacked."""
    only = [a for a in _atoms(self.our_axes) if a not in _atoms(self.their_axes)]
    return only[0] if only else None

  def _sizes(self, shape, known):
    sizes = {a: int(a) for a in '1' + self.our_axes + self.their_axes if a.isdigit()} | dict(known)
    for group, size in zip(_groups(self.our_axes), shape, strict=True):
      unknown = [a for a in group if a not in sizes or len(group) == 1]
      if unknown:
        name, = unknown
        sizes[name] = size // math.prod(sizes[a] for a in group if a != name)
    return sizes


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The tokens before the patches, and the positions.

  Ours, each [D] or [n, D], one after the other, are the same N tokens as theirs, one after the other. Theirs may have
  positions too: reading adds them to the tokens. Writing uses the position -0.0, which is neutral under addition.

  Attributes:
    tokens: our names, in order.
    their_tokens: their names in order, and how many tokens each has.
    position: the name of their table of positions; None: there is none.
    placed: how many of the first tokens have a position in the table, before those of the patches; None: all.
    axes: their leading axes: [1, T, D] and [1, n, D], or [T, D] and [D].
  """
  tokens: tuple[str, ...]
  their_tokens: tuple[tuple[str, int], ...]
  position: str | None
  placed: int | None = None
  axes: tuple[int, ...] = (1,)

  @property
  def names(self) -> tuple[str, ...]:
    return self.tokens if self.position is None else ('pos_embed', *self.tokens)

  @property
  def theirs(self) -> tuple[str, ...]:
    tokens = tuple(name for name, _ in self.their_tokens)
    return tokens if self.position is None else (self.position, *tokens)

  @property
  def _before(self):
    return sum(n for _, n in self.their_tokens) if self.placed is None else self.placed

  def shapes(self, ours, known):
    d = ours[0][-1]
    tokens = [(*self.axes, n, d) if self.axes or n > 1 else (d,) for _, n in self.their_tokens]
    return tokens if self.position is None else [(*self.axes, self._before + ours[0][0], d), *tokens]

  def read(self, theirs, ours, known):
    if self.position is None:
      position, tokens, shapes = None, theirs, ours
    else:
      (position, *tokens), shapes = theirs, ours[1:]
      position = position.reshape(-1, position.shape[-1])
    tokens_ND = np.concatenate([token.reshape(-1, token.shape[-1]) for token in tokens])
    if position is not None and self._before:
      tokens_ND = np.concatenate([tokens_ND[:self._before] + position[:self._before], tokens_ND[self._before:]])
    counts = [shape[0] if len(shape) > 1 else 1 for shape in shapes]
    parts = np.split(tokens_ND, np.cumsum(counts)[:-1])
    out = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return out if position is None else [position[self._before:], *out]

  def write(self, ours, known):
    shapes = self.shapes([array.shape for array in ours], known)
    tokens_ND = np.concatenate([token.reshape(-1, token.shape[-1])
                                for token in (ours if self.position is None else ours[1:])])
    parts = np.split(tokens_ND, np.cumsum([n for _, n in self.their_tokens])[:-1])
    if self.position is not None:
      zeros = np.full((self._before, tokens_ND.shape[1]), -0.0, np.float32)
      parts = [np.concatenate([zeros, ours[0]]), *parts]
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


Rule = Axes | Tokens


def _groups(axes: str) -> list[list[str]]:
  """The letters of each array axis: '(3 H K) D' -> [['3', 'H', 'K'], ['D']]."""
  return [group.strip('()').split() for group in re.findall(r'\([^)]*\)|\S+', axes)]


def _atoms(axes: str) -> list[str]:
  """All letters in order, without axes of size 1."""
  return [letter for group in _groups(axes) for letter in group if letter != '1']


@dataclasses.dataclass(frozen=True)
class Bound:
  """A rule applied to particular parameters of a model."""
  rule: Rule
  ours: tuple[str, ...]
  theirs: tuple[str, ...]
  our_shapes: tuple[tuple[int, ...], ...]


def bind(rules: Sequence[Rule], ours: Shapes) -> list[Bound]:
  """Assigns a rule to each parameter of ours: the first that matches. Raises LookupError if none does."""
  left, bound = dict(ours), []
  for rule in rules:
    first, *more = rule.names
    pattern = re.compile(re.sub(r'\\{(\w+)\\}', r'(?P<\1>\\d+)', re.escape(first)))
    for name in list(left):
      if not (match := pattern.fullmatch(name)):
        continue
      numbers = {key: int(value) for key, value in match.groupdict().items()}
      names = (name, *more)
      if all(other in left for other in names):
        after = {f'{key}1': value + 1 for key, value in numbers.items()}
        theirs = tuple(their.format(**numbers, **after) for their in rule.theirs)
        bound.append(Bound(rule, names, theirs, tuple(left.pop(other) for other in names)))
  if left:
    raise LookupError(f'no rule for {sorted(left)}')
  return bound


def expected(bound: Sequence[Bound], known: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
  """{their name: shape} of all tensors that the model needs."""
  return {name: shape for b in bound for name, shape in zip(b.theirs, b.rule.shapes(b.our_shapes, known), strict=True)}


def read(bound: Sequence[Bound], theirs: Callable[[str], np.ndarray],
         known: Mapping[str, int]) -> dict[str, np.ndarray]:
  """{our name: array}, from a function that returns their array by name."""
  out = {}
  for b in bound:
    out |= zip(b.ours, b.rule.read([theirs(name) for name in b.theirs], b.our_shapes, known), strict=True)
  return out


def write(bound: Sequence[Bound], ours: Mapping[str, np.ndarray], known: Mapping[str, int]) -> dict[str, np.ndarray]:
  """{their name: array}, from ours by name."""
  out = {}
  for b in bound:
    out |= zip(b.theirs, b.rule.write([ours[name] for name in b.ours], known), strict=True)
  return out


def own_names(ours: Shapes) -> list[Rule]:
  """The rules of a file that uses our names."""
  return [rule for name, shape in ours.items() for rule in same(name, ' '.join('ABCDEFGH'[:len(shape)]), name)]


def same(ours: str, axes: str, theirs: str, their_axes: str | None = None) -> list[Rule]:
  """One tensor; their axes are ours unless given."""
  return [Axes(ours, axes, (theirs,), their_axes or axes)]


def dense(ours: str, theirs: str, axes: str = 'I O', their_axes: str = 'O I') -> list[Rule]:
  """A linear map: our kernel and bias, their weight and bias."""
  return same(f'{ours}.kernel', axes, f'{theirs}.weight', their_axes) + same(f'{ours}.bias', 'O', f'{theirs}.bias')


def conv(ours: str, theirs: str, axes: str = 'P Q I O') -> list[Rule]:
  """A convolution."""
  return dense(ours, theirs, axes, 'O I P Q')


def patches(ours: str, theirs: str) -> list[Rule]:
  """An embedding of P x P patches with C channels: ours is a linear map of flat patches, theirs a convolution."""
  return dense(ours, theirs, '(P Q C) O', 'O C P Q')


def norm(ours: str, theirs: str) -> list[Rule]:
  """A layer norm."""
  return same(f'{ours}.scale', 'D', f'{theirs}.weight') + same(f'{ours}.bias', 'D', f'{theirs}.bias')


def batch_norm(ours: str, theirs: str) -> list[Rule]:
  """A batch norm with its moving averages."""
  averages = (('mean', 'running_mean'), ('var', 'running_var'))
  return norm(ours, theirs) + [rule for a, b in averages for rule in same(f'{ours}.{a}', 'D', f'{theirs}.{b}')]


def attention(ours: str, q_k_v: Sequence[str], out: str) -> list[Rule]:
  """Self-attention: their queries, keys and values are one map or three."""
  axes, bias = ('(3 H K) D', '(3 H K)') if len(q_k_v) == 1 else ('(H K) D', '(H K)')
  return [Axes(f'{ours}.qkv.kernel', 'D H 3 K', tuple(f'{name}.weight' for name in q_k_v), axes),
          Axes(f'{ours}.qkv.bias', 'H 3 K', tuple(f'{name}.bias' for name in q_k_v), bias),
          *dense(f'{ours}.out', out, 'H K O', 'O (H K)')]


def mlp(ours: str, up: str, down: str) -> list[Rule]:
  """The two linear maps of an MLP."""
  return dense(f'{ours}.up', up) + dense(f'{ours}.down', down)
