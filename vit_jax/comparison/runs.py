"""Compares the records, logs and checkpoints of two run folders, and says in one sentence where they part."""

import contextlib
import dataclasses
import json
import math
import os
from typing import Any

from vit_jax import records
from vit_jax.comparison import arrays, rows, settings, words
from vit_jax.errors import UserError

# Sums since the last training row. With another `log_every` they are sums over other steps.
_SINCE_LAST_ROW = {'rows': ('train',), 'arrays': ('metrics',)}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What two runs have in common, and what differs.

  Attributes:
    a, b: {path, config_hash, status} of the runs.
    tolerance: the relative difference up to which numbers count as equal.
    record: what differs in run.json, by section.
    logs: what differs in metrics.jsonl.
    checkpoints: what differs in the checkpoints.
    notes: what was left out, and why.
  """
  a: dict[str, Any]
  b: dict[str, Any]
  tolerance: float
  record: dict[str, list[settings.Setting]]
  logs: rows.Logs
  checkpoints: arrays.Checkpoints
  notes: list[str]

  @property
  def step(self) -> int | None:
    """The first step at which the runs part. None if they do not."""
    return min(self._parting().values(), default=None)

  @property
  def equal(self) -> bool:
    """Whether all that both have is equal within the tolerance, no row is missing and there was something to compare.

    Records may differ: the command is there to show that other code or devices give the same numbers.
    """
    return self.step is None and bool(self.logs.compared or self.checkpoints.compared)

  def verdict(self) -> str:
    """One sentence."""
    if self.step is not None:
      return f'they part at step {self.step:,}: {"; ".join(self._how())}'
    if not self.equal:
      return 'nothing to compare: no row and no checkpoint of the same step'
    within = f' within {self.tolerance:g}' if self.logs.first or self.checkpoints.first else ''
    further = self.logs.only_a or self.logs.only_b
    numbers = ((self.logs.compared, 'row'), (len(self.checkpoints.compared), 'checkpoint'),
               (self.checkpoints.arrays, 'array'))
    return (f'equal{within}{" as far as both go" if further else ""}: {", ".join(words.count(*n) for n in numbers)}'
            + ('' if within else ' bit for bit'))

  def _parting(self):
    """{what: the first step at which it differs}."""
    out = {'missing': self.logs.missing[0][0]} if self.logs.missing else {}
    out |= {'row': self.logs.beyond[0].step} if self.logs.beyond else {}
    return out | ({'arrays': self.checkpoints.beyond.step} if self.checkpoints.beyond else {})

  def _how(self):
    """The first row and the first tensor, the earlier one first."""
    steps = self._parting()
    for what in sorted(steps, key=steps.get):
      where = '' if steps[what] == self.step else f'at step {steps[what]:,} '
      if what == 'row':
        cell = self.logs.beyond[0]
        values = f'is {words.value(cell.a)}, there {words.value(cell.b)}'
        yield f'{where}{cell.split} {cell.column} {values}{_relative(cell.relative)}'
      elif what == 'missing':
        step, split = self.logs.missing[0]
        yield f'{where}only {"A" if (step, split) in self.logs.only_a else "B"} has the row of {split}'
      else:
        yield where + _tensor(self.checkpoints.beyond)

  def to_json(self) -> str:
    """The whole comparison as one JSON object. A number that is not finite is null; an absent setting has no entry."""
    setting = lambda s: {'key': s.key} | {
        name: value for name, value in (('a', s.a), ('b', s.b)) if value is not settings.ABSENT}
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    plain = {name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
             for name, value in fields.items()}
    plain['record'] = {section: list(map(setting, found)) for section, found in self.record.items()}
    return json.dumps({'equal': self.equal, 'step': self.step, 'verdict': self.verdict(), **plain})


def compare(a: str, b: str, tolerance: float = 0.0) -> Comparison:
  """Compares two run folders, local or bucket paths. Runs that have not finished are compared as far as both go.

  Raises:
    UserError: no run there, a damaged or missing file, or a negative tolerance.
  """
  if not (math.isfinite(tolerance) and tolerance >= 0):
    raise UserError(f'--tolerance={tolerance}: expected a relative difference, 0 or more, such as 1e-6')
  ours, theirs = _record(a), _record(b)
  every = _log_every(ours), _log_every(theirs)
  without, notes = {'rows': (), 'arrays': ()}, []
  if every[0] != every[1]:
    without = _SINCE_LAST_ROW
    notes.append(f'system.log_every is {every[0]}, there {every[1]}: rows of training are means over other steps, and '
                 'are not compared')
  logs = rows.compare(rows.Log(a, ours, without['rows']), rows.Log(b, theirs, without['rows']), tolerance)
  with contextlib.closing(arrays.Saved(a, without['arrays'])) as saved_a, \
       contextlib.closing(arrays.Saved(b, without['arrays'])) as saved_b:
    checkpoints = arrays.compare(saved_a, saved_b, tolerance)
  head = lambda path, record: {'path': os.fspath(path), 'config_hash': record.get('config_hash'),
                               'status': record.get('status')}
  return Comparison(head(a, ours), head(b, theirs), tolerance, settings.differences(ours, theirs), logs, checkpoints,
                    notes)


def _record(workdir):
  record = records.read_run(workdir)
  if record is None:
    raise UserError(f'{os.fspath(workdir)}: no run there (no {records.RUN}); give the folder that vit_jax.main wrote')
  return record


def _log_every(record):
  system = (record.get('config') or {}).get('system')
  return system.get('log_every') if isinstance(system, dict) else None


def _tensor(step):
  """`params/head/kernel differs in 3 of 160 elements (relative difference 1.2e-07), 5 more arrays differ`."""
  if not step.tensors:
    names = step.only_a or step.only_b
    return f'only {"A" if step.only_a else "B"} has {words.count(len(names), "array")}: {names[0]}'
  tensor = step.tensors[0]
  if tensor.a != tensor.b:
    what = f'{tensor.name} is {tensor.a}, there {tensor.b}'
  else:
    what = f'{tensor.name} differs in {tensor.elements:,} of {tensor.of:,} elements{_relative(tensor.relative)}'
  more = len(step.tensors) + len(step.only_a) + len(step.only_b) - 1
  return what + (f', and {words.count(more, "more array")}' if more else '')


def _relative(value):
  return '' if value is None else f' (relative difference {words.ratio(value)})'
