"""What the functions of `vit_jax.api` return: arrays, tables, and what the command would have printed."""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from vit_jax import law_fit, objectives, records, schema
from vit_jax.comparison import runs as comparison_runs
from vit_jax.comparison import terminal as comparison_terminal
from vit_jax.console import Console
from vit_jax.errors import UserError
from vit_jax.inspection import evaluation as evaluation_lib
from vit_jax.inspection import scores
from vit_jax.interop.classifier import Classifier
from vit_jax.rehearsal import plan_text, run_plan
from vit_jax.scaling import analysis as analysis_lib
from vit_jax.scaling import law_page, target
from vit_jax.scaling import terminal as law_terminal
from vit_jax.shown import Shown, Table
from vit_jax.training import config as run_config
from vit_jax.training import trained
from vit_jax.training.display import Display

MFU = 0.4  # model FLOPs utilisation that a plan's chip-hours assume


@dataclasses.dataclass(frozen=True, repr=False)
class Run(Shown):
  """A trained run.

  Attributes:
    place: its folder; of a run that stopped at frozen features, the bundle that it made.
    results: its scores by split, its steps, and so on, as in run.json.
  """
  place: str
  results: dict[str, Any]

  @property
  def record(self) -> dict[str, Any]:
    """run.json; empty for a bundle."""
    return records.read_run(self.place) or {}

  @property
  def metrics(self) -> Table:
    """metrics.jsonl: a row for each interval and evaluation."""
    return Table.of(records.read_rows(os.path.join(self.place, records.METRICS)))

  @functools.cached_property
  def model(self) -> Classifier:
    """The trained model: a function from pictures to probabilities."""
    return trained.load(self.place)

  def show(self, console: Console) -> None:
    if 'linear' in self.results:
      console.print(f'linear probe: test accuracy {self.results["linear"]:.2%}; k-NN {self.results["knn"]:.2%}; bundle '
                    f'{self.place}', soft_wrap=True)
    else:
      objective = objectives.of(run_config.cast(self.record['config']))
      Display(console).summary(self.results, objective, self.place)


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation(Shown):
  """The scores of a model on a split; `found` has the model, its predictions and some pictures."""
  found: evaluation_lib.Evaluation

  @property
  def summary(self) -> dict[str, Any]:
    """accuracy, accuracy_ci95, loss, ece and the others of `inspection.scores.scores`."""
    return self.found.summary

  @property
  def classes(self) -> Table:
    """n, recall and precision of each class, and what it is most often taken for."""
    return Table.of(self.summary['classes'])

  @property
  def confusion(self) -> np.ndarray:
    """Counts int [C, C], by label (row) and predicted class (column)."""
    if not isinstance(self.found.predictions, scores.Predictions):
      raise UserError('confusion: a class is not taken for another one where a picture can have several labels')
    return scores.confusion(self.found.predictions)

  def write(self, out: str | None = None) -> list[str]:
    """Writes SPLIT.json and the figure of the confusion matrix, as the command does."""
    return [os.fspath(path) for path in evaluation_lib.write(self.found, out)]

  def show(self, console: Console) -> None:
    evaluation_lib.show(self.found, console=console)


@dataclasses.dataclass(frozen=True, repr=False)
class Predictions(Shown):
  """Classified pictures.

  Attributes:
    names: the n paths, or the numbers of an array's pictures.
    class_names: the C classes.
    probabilities: float32 [n, C]; with `several_labels` of each class by itself, else they sum to 1.
    unreadable: {path: why} of pictures that are left out.
  """
  names: tuple[str, ...]
  class_names: tuple[str, ...]
  probabilities: np.ndarray
  unreadable: dict[str, str]
  several_labels: bool = False

  @property
  def classes(self) -> list[str] | list[tuple[str, ...]]:
    """The most probable class of each picture; with several labels, those with a probability above 1/2."""
    if self.several_labels:
      return [tuple(name for name, p in zip(self.class_names, row) if p > 0.5) for row in self.probabilities]
    return [self.class_names[i] for i in self.probabilities.argmax(axis=1)]

  @property
  def table(self) -> Table:
    """A row for each picture: its name, class and probability, or its classes."""
    if self.several_labels:
      return Table.of({'picture': name, 'classes': ', '.join(of)} for name, of in zip(self.names, self.classes))
    best = self.probabilities.max(axis=1)
    return Table.of({'picture': name, 'class': of, 'probability': float(p)}
                    for name, of, p in zip(self.names, self.classes, best, strict=True))

  def show(self, console: Console) -> None:
    self.table.show(console)
    for name, why in self.unreadable.items():
      console.print(f'{name}: cannot be read: {why}')


@dataclasses.dataclass(frozen=True, repr=False)
class Runs(Shown):
  """Many runs: `place` is their folder, `found` has (folder, run.json) of each."""
  place: str
  found: tuple[tuple[str, dict[str, Any]], ...]

  @property
  def table(self) -> Table:
    """A row for each run: what differs between their configs, and its scores."""
    flat = [schema.flat(record.get('config') or {}) for _, record in self.found]
    keys = list(dict.fromkeys(key for config in flat for key in config if not key.startswith('system.')))
    differing = [key for key in keys if len({repr(config.get(key)) for config in flat}) > 1]
    return Table.of({
        'run': os.path.basename(folder), 'status': record.get('status'),
        **{key: config.get(key) for key in differing}, 'params': record.get('params'),
        **{f'{split}/{name}': ((record.get('results') or {}).get(split) or {}).get(name)
           for split in ('val', 'test') for name in ('loss', 'accuracy')}}
        for config, (folder, record) in zip(flat, self.found, strict=True))

  def show(self, console: Console) -> None:
    self.table.show(console)


@dataclasses.dataclass(frozen=True, repr=False)
class Law(Shown):
  """A law and how well the data tell it; `analysis` has everything that its page shows."""
  analysis: analysis_lib.Analysis
  time_spent: dict[str, float]

  @property
  def law(self) -> dict[str, Any]:
    """What law.json holds."""
    return self.analysis.law

  @property
  def verdict(self) -> str:
    """One sentence: how well it predicts, and which coefficients the data do not identify."""
    return self.law['verdict']

  @property
  def coefficients(self) -> Table:
    """A row for each: its name, value, and 95% interval (None without a bootstrap)."""
    intervals = self.law['ci95'] or {}
    return Table.of({'coefficient': name, 'value': value, 'low': intervals.get(name, (None, None))[0],
                     'high': intervals.get(name, (None, None))[1], 'identified': name not in self.law['not_identified']}
                    for name, value in self.law['coefficients'].items())

  @property
  def points(self) -> Table:
    """A row for each point: its run, inputs, measured value, and whether it was fitted or held out."""
    a = self.analysis
    columns = {a.points.x_name or name if name == 'x' else name: values for name, values in a.points.columns.items()}
    return Table.of({'run': run, **{name: float(values[i]) for name, values in columns.items()},
                     a.points.metric: float(a.points.y[i]), 'fitted': bool(a.fitted[i]), 'held_out': bool(a.held[i])}
                    for i, run in enumerate(a.points.runs))

  def predict(self, **inputs: Any) -> np.ndarray:
    """The law at some inputs: law.predict(params=..., examples=...), or by the name of x."""
    x = self.analysis.points.x_name
    columns = {'x' if name == x else name: np.atleast_1d(np.asarray(values, float)) for name, values in inputs.items()}
    return self.analysis.fit.predict(columns)

  def write(self, out: str | os.PathLike) -> str:
    """Writes law.json, report.html and figures into a folder, as --out does."""
    return law_page.write(os.fspath(out), {'': self.analysis}, [], 'vit_jax.fit, from Python', self.time_spent)

  @property
  def targets(self) -> Table:
    """A row for each prediction that was asked for with `target`, of a chained law too."""
    return _targets({'': self.analysis})

  def show(self, console: Console) -> None:
    law_terminal.show_fitted(console, {'': self.analysis})


@dataclasses.dataclass(frozen=True, repr=False)
class Laws(Shown):
  """The laws of several groups; laws['NAME'] is one of them. `fitted` has what they have in common."""
  fitted: law_fit.Fitted

  @property
  def names(self) -> list[str]:
    """The groups."""
    return list(self.fitted.groups)

  def __getitem__(self, name: str) -> Law:
    return Law(self.fitted.groups[name], self.fitted.loaded.time_spent)

  @property
  def comparisons(self) -> Table:
    """A row for each pair that was compared: multiplier, its interval, p, and the runs that would still decide."""
    return Table.of({'a': row['a'], 'b': row['b'], 'of': row['of'], 'loss': row['loss'],
                     'multiplier': row['multiplier'], 'low': row.get('ci95', (None, None))[0],
                     'high': row.get('ci95', (None, None))[1], 'p': row.get('p'), 'words': row['words']}
                    for row in self.fitted.multipliers)

  @property
  def targets(self) -> Table:
    """A row for each group and prediction that was asked for with `target`."""
    return _targets(self.fitted.groups)

  def write(self, out: str | os.PathLike) -> str:
    """Writes law.json, report.html and figures into a folder, as --out does."""
    together = self.fitted.together
    return law_page.write(os.fspath(out), self.fitted.groups, self.fitted.multipliers, 'vit_jax.fit, from Python',
                          self.fitted.loaded.time_spent, {'shared': together.summary} if together else {})

  def show(self, console: Console) -> None:
    law_terminal.show_fitted(console, self.fitted.groups, self.fitted.together, self.fitted.multipliers)


def _targets(groups):
  """A table of the predictions of laws."""
  return Table.of({'group': row['group'], **row['target'], 'metric': row['metric'],
                   'predicted': row['predicted'], 'low': (row['ci95_run'] or (None, None))[0],
                   'high': (row['ci95_run'] or (None, None))[1]} for row in target.asked(groups))


@dataclasses.dataclass(frozen=True, repr=False)
class Plan(Shown):
  """What a run needs on TPUs or GPUs; `plan` has its memory, work and times."""
  plan: run_plan.Plan
  name: str

  @property
  def fits(self) -> bool | None:
    """Whether it fits; None where it was not compiled and the state alone would fit."""
    return self.plan.fits

  @property
  def figures(self) -> dict[str, Any]:
    """What `--json` prints."""
    return self.plan.to_json()

  def show(self, console: Console) -> None:
    console.print('\n'.join(plan_text.lines(self.plan, self.name, MFU, None)), soft_wrap=True)


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(Shown):
  """Where two runs part; `found` has the records, rows and arrays that differ."""
  found: comparison_runs.Comparison

  @property
  def equal(self) -> bool:
    return self.found.equal

  @property
  def verdict(self) -> str:
    return self.found.verdict()

  def show(self, console: Console) -> None:
    comparison_terminal.show(console, self.found)
