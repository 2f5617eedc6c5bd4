"""metrics.jsonl of two runs: the first row in which they differ, and how the difference grows."""

import collections
import dataclasses
import os
from typing import Any

from etils import epath

from vit_jax import records
from vit_jax.comparison import numeric
from vit_jax.errors import UserError

_COUNTED = ('examples', 'unique_examples', 'epochs', 'flops')  # follow from the config, so they come last
Key = tuple[int, str, int]  # step, split, and which of several rows of these


@dataclasses.dataclass(frozen=True)
class Cell:
  """A column of a row that both runs have, with different values (`numeric.apart`)."""
  split: str
  step: int
  column: str
  a: Any
  b: Any
  absolute: float | None
  relative: float | None


@dataclasses.dataclass(frozen=True)
class Growth:
  """A column that differs in some rows of a split: where that begins, how far it goes and what is left at the end.

  Attributes:
    first, largest, last: the first cell that differs, the one that differs most, and that of the last row which both
      runs have of this split (None where that one is equal).
    rows: how many of the split's rows differ in this column, `of` how many that both runs have.
  """
  split: str
  column: str
  first: Cell
  largest: Cell
  last: Cell | None
  rows: int
  of: int


@dataclasses.dataclass(frozen=True)
class Logs:
  """What two logs have in common.

  Attributes:
    compared: how many rows both have.
    exact: how many of these are equal in every column.
    first: the columns of the first row that differs. Empty if all rows are equal.
    beyond: the columns that differ by more than the tolerance, in the first row that has any.
    growth: every column that differs.
    only_a, only_b: (step, split) of rows that only one has.
    missing: those of them that the other run should have: it is finished, or has logged a later step.
  """
  compared: int
  exact: int
  first: list[Cell]
  beyond: list[Cell]
  growth: list[Growth]
  only_a: list[tuple[int, str]]
  only_b: list[tuple[int, str]]
  missing: list[tuple[int, str]]


class Log:
  """The rows of one run, and which of all rows it should have."""

  def __init__(self, workdir: os.PathLike, record: dict[str, Any], without: tuple[str, ...] = ()):
    """Reads metrics.jsonl. Rows of the splits in `without` are left out.

    Raises:
      UserError: the file is damaged, or missing although the run has finished.
    """
    path = epath.Path(workdir) / records.METRICS
    self._finished, lineage = record.get('status') == 'finished', record.get('lineage')
    if self._finished and not path.exists():
      raise UserError(f'{os.fspath(path)}: no such file, although the run has finished; was it moved?')
    self.rows: dict[Key, dict[str, Any]] = {}
    seen, begins = collections.Counter(), lineage.get('step') if isinstance(lineage, dict) else None
    for number, row in enumerate(records.read_rows(path), 1):
      step, split = row.get('step'), row.get('split')
      if not isinstance(step, int) or isinstance(step, bool) or not isinstance(split, str):
        raise UserError(f'{os.fspath(path)}, line {number}: expected a step and a split, got step={step!r} and '
                        f'split={split!r}; was the file damaged?')
      if split not in without:
        self.rows[step, split, seen[step, split]] = row
        seen[step, split] += 1
    self._begins = begins if isinstance(begins, int) else 0  # a branch's log begins where it leaves its trunk
    self._last = max((step for step, *_ in self.rows), default=0)

  def should_have(self, step: int) -> bool:
    """Whether this log should have a row of this step, given that another run has one."""
    return step > self._begins and (self._finished or step < self._last)


def compare(a: Log, b: Log, tolerance: float = 0.0) -> Logs:
  """Compares what both runs have logged, in the order of steps.

  Args:
    tolerance: the relative difference up to which values count as equal.
  """
  # By step; rows of one step stay in the order in which they were logged.
  common = sorted((key for key in a.rows if key in b.rows), key=lambda key: key[0])
  cells = {key: _cells(key, a.rows[key], b.rows[key]) for key in common}
  differing = [cells[key] for key in common if cells[key]]
  beyond = [far for row in differing if (far := [c for c in row if numeric.beyond(c.relative, tolerance)])]
  only_a, only_b = ([key[:2] for key in ours.rows if key not in theirs.rows] for ours, theirs in ((a, b), (b, a)))
  missing = [key for key in only_a if b.should_have(key[0])] + [key for key in only_b if a.should_have(key[0])]
  return Logs(len(common), len(common) - len(differing), differing[0] if differing else [],
              beyond[0] if beyond else [], _growth(cells), only_a, only_b, sorted(missing))


def _cells(key, ours, theirs):
  step, split, _ = key
  columns = sorted(ours | theirs, key=_COUNTED.__contains__)
  pairs = ((column, ours.get(column), theirs.get(column)) for column in columns)
  return [Cell(split, step, column, a, b, *numeric.apart(a, b)) for column, a, b in pairs
          if not numeric.same(a, b)]


def _growth(cells):
  """A Growth of each column that differs, from {key: cells that differ} of all common rows."""
  of, last = collections.Counter(split for _, split, _ in cells), {key[1]: key for key in cells}
  columns = collections.defaultdict(list)
  for row in cells.values():
    for cell in row:
      columns[cell.split, cell.column].append(cell)
  size = lambda cell: float('inf') if cell.relative is None else cell.relative
  return [Growth(split, column, found[0], max(found, key=size),
                 next((cell for cell in cells[last[split]] if cell.column == column), None), len(found), of[split])
          for (split, column), found in columns.items()]
