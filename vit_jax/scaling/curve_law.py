"""The choice of the decay of annealing for laws of whole curves (see `curve_rows`)."""

import dataclasses
from collections.abc import Callable, Sequence

from vit_jax.scaling import estimate, holdout
from vit_jax.scaling.analysis import Settings, split_groups
from vit_jax.scaling.points import Points


def choose(load: Callable[[float], Points], settings: Callable[[Points], Settings], decays: Sequence[float],
           group: str | None) -> tuple[Points, Settings]:
  """The points with the decay that fits best, with their settings; a note says what it was chosen from.

  Args:
    load: reads the points with a decay.
    settings: the options of an analysis of points.
    decays: what to choose from. Held-out points have no part in the choice.
    group: the column whose values have laws of their own, with one decay.

  Raises:
    UserError: see `points.load` and `estimate.fit`.
  """
  tried = [(points, settings(points)) for points in map(load, decays)]
  if len(tried) == 1:
    return tried[0]
  values = [sum(_misfit(part, found) for part in split_groups(points, group).values()) for points, found in tried]
  points, found = tried[values.index(min(values))]
  best, end = decays[values.index(min(values))], {min(decays): 'shortest', max(decays): 'longest'}
  note = f'the decay was chosen from {", ".join(f"{decay:g}" for decay in decays)}: intervals do not include the choice'
  if best in end:
    note += f'. It is the {end[best]} memory of these: what annealing brings may have another form'
  return dataclasses.replace(points, notes=(*points.notes, note)), found


def _misfit(points, settings):
  used = points.take(~holdout.mask(points, settings.holdout, some=False))
  return estimate.fit(settings.form, used.columns, used.y, settings.objective, exact=False).value
