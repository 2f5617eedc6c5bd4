"""The law that the finished runs of a board give so far, the ends that it predicts, and the answer of two groups."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import analysis, payload
from vit_jax.scaling import points as points_lib

_REFITS = 100  # fewer than the law command's: the page is written again and again
_SEVERAL = 4  # distinct values of an input without which no law of it is fitted


@dataclasses.dataclass(frozen=True)
class SoFar:
  """What is known of a law.

  Attributes:
    headline: the answer of two groups, or the law's verdict; None without a law.
    why_not: why there is no law; '' with one.
    groups: the payloads of the groups' laws, one where there are no groups.
    analyses: {value of the column `group`: analysis}; with '' for all runs where there are no groups.
    column: the config key or column whose values are the groups; None without.
  """
  headline: str | None
  why_not: str
  groups: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  analyses: dict[str, analysis.Analysis] = dataclasses.field(default_factory=dict)
  column: str | None = None


def fit(folders: Sequence[str], group: str | None, column: str | None = None) -> SoFar:
  """Fits a law to the finished runs, in sizes and lengths where both differ, else in what differs.

  Args:
    folders: of finished runs.
    group: the column whose values are fitted apart; None: `column`, if it is one of the points.
    column: the key that tells two groups apart, of which no one has asked.
  """
  try:
    found = points_lib.load(folders, group=group)
    column = group or (column if column and len({str(row.get(column)) for row in found.rows}) == 2 else None)
    split = analysis.split_groups(points_lib.load(folders, group=column) if column != group else found, column)
    inputs = [name for name in ('params', 'examples') if name in found.columns]
    values = {name: min(len(set(part.columns[name])) for part in split.values()) for name in inputs}
    x = [name for name in inputs if values[name] >= _SEVERAL]
    if not x or any(1 < n < _SEVERAL for n in values.values()):  # a law of one input would mix values of the other
      there = ' and '.join(f'{n} of {name}' for name, n in values.items())
      return SoFar(None, f'no law yet: the finished runs ({len(found)}) have {there} in each group; a law needs '
                         f'{_SEVERAL} different values of one, and as many of the other or the same in all runs')
    form = 'chinchilla' if len(x) == 2 else 'power_offset'
    if len(x) == 1:
      split = analysis.split_groups(points_lib.load(folders, x=x[0], group=column), column)
    groups = analysis.analyse_groups(split, analysis.Settings(form, replicates=_REFITS))
    said = [row['words'] for row in analysis.multipliers(groups, analysis.pairs(list(groups)))]
  except UserError as error:
    return SoFar(None, f'no law yet: {error}')
  said += [f'{name}: {one.law["verdict"]}' if name else one.law['verdict'] for name, one in groups.items()]
  shown = [payload.payload(name, one, lean=True) | {'color': payload.group_color(i)}
           for i, (name, one) in enumerate(groups.items())]
  return SoFar(said[0], '', shown, groups, column)


def predicted_end(so_far: SoFar, run: Mapping[str, Any]) -> tuple[float, float, float] | None:
  """(loss, the ends of the 95% interval of a new run) that the law predicts for {params, examples, group} of a run.

  None without a law, or where the run has not said its size yet.
  """
  group = so_far.analyses.get(run.get('group') or '') if so_far.column else so_far.analyses.get('')
  if group is None:
    return None
  inputs = {name: run.get(group.points.x_name if name == 'x' else name) for name in group.fit.form.inputs}
  if not all(inputs.values()):
    return None
  columns = {name: np.array([float(value)]) for name, value in inputs.items()}
  low, high = group.boot.bands(columns)[1][:, 0] if group.boot else (np.nan, np.nan)
  return float(group.fit.predict(columns)[0]), float(low), float(high)


def departure(end: tuple[float, float, float] | None, loss: float | None, finished: bool) -> str:
  """How a run has left the interval of its predicted end, in words; '' if it has not.

  A run that goes on is above its end until then, so only its end is above the interval. Below it can be before.

  Args:
    end: what `predicted_end` said before the run had finished.
    loss: its last validation loss.
    finished: whether that is its end.
  """
  if end is None or loss is None or not np.isfinite(end[1:]).all():
    return ''
  if loss < end[1]:
    return 'ended below the interval' if finished else 'is below the interval already'
  return 'ended above the interval' if finished and loss > end[2] else ''
