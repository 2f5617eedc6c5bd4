"""The next run to train: the compute-optimal run at a budget, as a recipe that states the law's prediction for it.

The law gives N* and D*. The ladder's own rules give the possible shapes. Each shape's parameters and FLOPs are counted
on the model itself, so that the recipe spends exactly the budget, however well C = k N^q D fits.
"""

import copy
import dataclasses
import math
import shlex
import textwrap
from typing import Any

import numpy as np
from etils import epath

from vit_jax import durable, objectives, schema
from vit_jax.cost import flops
from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.optimisation import schedule, trainable
from vit_jax.printable import printable
from vit_jax.scaling import frontier
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.points import Points
from vit_jax.scaling.verdict import number
from vit_jax.sweeps import ladder as ladder_lib
from vit_jax.training import config as run_config

COUNTS = ('params', 'params_non_embedding')  # entries of run.json, as flops.params returns them
SAME_FLOPS = 0.01  # largest relative difference between a run's logged FLOPs and those counted from its config
MARK = 'Written by vit_jax.law'


@dataclasses.dataclass(frozen=True)
class NextRun:
  """The compute-optimal run at a budget of training FLOPs.

  Attributes:
    config: the full RunConfig.
    count: which of COUNTS is the law's N.
    params: its parameters, counted as `count` says.
    examples: the training examples that it sees.
    steps: its length.
    flops: its training FLOPs.
    optimal: the law's entry for this budget (`frontier.compute_optimal`): N*, D*, ...
    loss: the predicted loss.
    law_ci95: 95% interval of the law at this point; None without bootstrap.
    run_ci95: 95% interval of this run's loss; None without bootstrap.
    rate: the rule of the learning rate.
    shape: the model's fields that the ladder sets.
    epochs: passes over the training subset.
    beyond: its FLOPs as a multiple of the largest fitted run's.
    notes: descriptions of fields in which the runs differ and that no rule covers.
  """
  config: Any
  count: str
  params: int
  examples: int
  steps: int
  flops: float
  optimal: dict[str, Any]
  loss: float
  law_ci95: list[float] | None
  run_ci95: list[float] | None
  rate: ladder_lib.RateRule
  shape: dict[str, int]
  epochs: float
  beyond: float
  notes: tuple[str, ...]

  def words(self) -> str:
    """The run and its prediction, on one line."""
    shape = ', '.join(f'{name} {value}' for name, value in self.shape.items())
    interval = f' (95% of a run: {self.run_ci95[0]:.4g} to {self.run_ci95[1]:.4g})' if self.run_ci95 else ''
    return (f'{shape}: N = {number(self.params)}, D = {number(self.examples)} ({self.steps} steps), learning rate '
            f'{self.config.optimizer.learning_rate:.3g}; predicted loss {self.loss:.4g}{interval}')


def choose(analysis: Analysis, budget: float) -> NextRun:
  """Chooses the run at `budget` FLOPs, with the shape of the ladder whose size is nearest to N*.

  Raises:
    UserError: the law is not in params and examples, the points are not run folders, the runs do not form a ladder, or
      the logged counts cannot be reproduced from the runs' configs.
  """
  fit, points = analysis.fit, analysis.points
  if fit.form.inputs != ('params', 'examples'):
    raise UserError(f'--write_config: the law must be in params and examples, as --form=chinchilla; '
                    f'{fit.form.name} is in {", ".join(fit.form.inputs)}')
  configs = configs_of(points)
  count = count_of(points)
  optimal, = frontier.compute_optimal(fit, analysis.boot, np.array([budget]), analysis.cost)
  nearest = nearest_run(points, optimal['params'], optimal['examples'])
  base = copy.deepcopy(configs[nearest])
  sizes = Sizes(base, count)
  check_counts(points, nearest, sizes)
  ladder = ladder_lib.read([config['model'] for config in configs])
  shape = nearest_shape(ladder, sizes, optimal['params'])
  per_example = sizes.flops(shape)
  unique = float(points.rows[nearest]['unique_examples'])
  length = schedule.LengthConfig(flops=float(budget))
  steps = schedule.num_steps(length, base['data']['batch_size'], unique, per_example)
  examples = steps * base['data']['batch_size']
  rate = rate_rule(points, configs, ladder.dial)
  base['model'] |= shape
  base['train'] = dataclasses.asdict(length)
  base['optimizer']['learning_rate'] = float(f'{rate(shape[ladder.dial], examples):.3g}')
  config = run_config.cast(base)
  schedule.check(config.schedule, steps)
  params = sizes.params(shape)
  there = {'params': np.array([params], float), 'examples': np.array([examples], float)}
  bands = [None, None] if analysis.boot is None else [band[:, 0].tolist() for band in analysis.boot.bands(there)]
  return NextRun(config, count, params, examples, steps, examples * per_example, optimal,
                 float(fit.predict(there)[0]), *bands, rate, shape, examples / unique,
                 budget / float(points.columns['flops'][analysis.fitted].max()),
                 tuple(_unruled(configs, nearest, ladder)))


def write(next_run: NextRun, analysis: Analysis, path: str, command: str) -> None:
  """Writes the recipe. A file that this program did not write is not overwritten.

  Raises:
    UserError: `path` does not end in .py, or is a file that this program did not write.
  """
  file = epath.Path(path)
  if file.suffix != '.py':
    raise UserError(f'--write_config={path}: expected a file name that ends in .py')
  if file.exists() and MARK not in file.read_text():
    raise UserError(f'--write_config={path}: the file exists and was not written by this program; give another name')
  durable.write(file, recipe(next_run, analysis, path, command))


def recipe(next_run: NextRun, analysis: Analysis, path: str, command: str) -> str:
  """The text of the recipe, with the prediction in its docstring and all values that are not defaults in its body."""
  return (f'"""{_docstring(next_run, analysis, path, command)}"""\n\nfrom vit_jax import config\n\n\n'
          f'{source(next_run.config)}')


def source(config: run_config.RunConfig) -> str:
  """The source of get_config() of a config."""
  changed = schema.changed(config)
  if config.pretrained.path is not None:  # what is not set would be that of the weights
    changed['model'] = schema.plain(config.model)
  start = ', '.join(repr(changed.pop(name)) for name in ('family', 'objective') if name in changed)
  values = '\n'.join(f'  c.{key} = {value!r}' for key, value in leaves(changed).items())
  return f'def get_config():\n  c = config.defaults({start})\n{values}\n  return c\n'


class Sizes:
  """Counts parameters and FLOPs of the ladder's shapes, on the model of one run's config."""

  def __init__(self, config: dict, count: str):
    self._config, self._which = run_config.cast(config), COUNTS.index(count)
    data, self._models = self._config.data, {}
    self._image = (*data.image_size, data.channels) if data.image_size and data.channels else None
    self._classes = data.num_classes
    if self._image is None or self._classes is None:
      opened = pipeline.open_data(data)
      self._image, self._classes = opened.image_shape, opened.num_classes

  def params(self, shape: dict[str, int]) -> int:
    return flops.params(self._model(shape))[self._which]

  def flops(self, shape: dict[str, int]) -> int:
    """Training FLOPs per example."""
    model = self._model(shape)
    return flops.per_example(model, trainable.freezer(self._config.optimizer, model))[1]

  def _model(self, shape):
    key = tuple(sorted(shape.items()))
    if key not in self._models:
      config = dataclasses.replace(self._config.model, **shape)
      self._models[key] = PureModel(self._config.family, config, self._image, self._classes,
                                    objective=objectives.of(self._config))
    return self._models[key]


def configs_of(points: Points) -> list[dict]:
  """The configs of the runs. Raises UserError for points that are no runs of one family."""
  without = [run for run, row in zip(points.runs, points.rows) if not row.get('_config')]
  if without:
    raise UserError('--write_config, --write_sweep: expected run folders, whose run.json holds the config; '
                    f'{len(without)} of {len(points)} points have none, such as {without[0]}')
  families = sorted({row['_config']['family'] for row in points.rows})
  if len(families) > 1:
    raise UserError(f'--write_config, --write_sweep: the runs are of several families ({", ".join(families)}); give '
                    'runs of one family')
  return [row['_config'] for row in points.rows]


def count_of(points: Points) -> str:
  """Which of COUNTS is the law's N."""
  for name in COUNTS:
    if all(row.get(name) == n for row, n in zip(points.rows, points.columns['params'])):
      return name
  raise UserError('--write_config, --write_sweep: the law takes params from a column that cannot be counted from a '
                  f'config; leave out --columns=params=..., or use one of {", ".join(COUNTS)}')


def nearest_run(points: Points, params: float, examples: float) -> int:
  """The index of the run that is nearest in log N and log D."""
  columns = points.columns
  return int(np.argmin(np.hypot(np.log(columns['params'] / params), np.log(columns['examples'] / examples))))


def check_counts(points: Points, index: int, sizes: Sizes) -> None:
  """Refuses a run whose logged counts differ from those of its config: budget and N would be in other units."""
  run, columns = points.runs[index], points.columns
  if 'flops' not in columns:
    raise UserError('--write_config, --write_sweep: the points have no column flops, so a budget cannot be compared '
                    'with them')
  logged, ours = columns['params'][index], sizes.params({})
  if logged != ours:
    raise UserError(f'{run}: run.json says {logged:.0f} params, but its config gives {ours}: it was made by other '
                    'code')
  logged, ours = columns['flops'][index] / columns['examples'][index], sizes.flops({})
  if abs(logged / ours - 1) > SAME_FLOPS:
    raise UserError(f'{run}: {logged:.4g} FLOPs per example in the points, but {ours:.4g} by its config: --budget '
                    'would be in other units than the points')


def nearest_shape(ladder: ladder_lib.Ladder, sizes: Sizes, target: float) -> dict[str, int]:
  """The shape of the ladder whose N is nearest to `target` in log N. N increases with the rung."""
  low, high = 1, 2
  while sizes.params(ladder.shape(high)) < target:
    low, high = high, 2 * high
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if sizes.params(ladder.shape(middle)) < target else (low, middle)
  off = lambda shape: abs(math.log(sizes.params(shape) / target))
  return min((ladder.shape(rung) for rung in (low, high)), key=off)


def rate_rule(points: Points, configs: list[dict], dial: str) -> ladder_lib.RateRule:
  """The ladder's rule of the learning rate. Raises UserError where a run has a rate of 0."""
  values, rates = (np.array([config[room][key] for config in configs], float)
                   for room, key in (('model', dial), ('optimizer', 'learning_rate')))
  if not np.all(rates > 0):
    raise UserError('--write_config, --write_sweep: a run has a learning rate of 0')
  return ladder_lib.rate_rule(dial, values, points.columns['examples'], rates, points.y)


def _unruled(configs, index, ladder):
  """Yields notes such as `data.batch_size 64, as in the nearest run (of 32, 64)` on fields that vary without a rule."""
  ruled = {'optimizer.learning_rate', 'seed', *(f'model.{name}' for name in (ladder.dial, *ladder.rules))}
  default = leaves(run_config.defaults(configs[index]['family']).to_dict())  # of fields newer than a run
  flat = [default | leaves(config) for config in configs]
  for key, value in flat[index].items():
    found = {str(f.get(key)) for f in flat}
    if len(found) > 1 and key not in ruled and key.partition('.')[0] not in ('train', 'system'):
      yield f'{key} {value}, as in the nearest run (of {", ".join(sorted(found)[:4])})'


def leaves(tree: dict) -> dict[str, Any]:
  """{'model.width': 192, ...}; lists are tuples, as in a recipe."""
  return {key: tuple(value) if isinstance(value, list) else value for key, value in schema.flat(tree).items()}


def _docstring(run, analysis, path, command):
  law, best = analysis.law, run.optimal
  interval = lambda pair: f'{pair[0]:.5g} to {pair[1]:.5g}'
  coefficients = ', '.join(f'{name} = {value:.6g}' for name, value in law['coefficients'].items())
  split = {row.get('split') for row in analysis.points.rows}
  predicted = f'Predicted {law["metric"]} ({"/".join(sorted(filter(None, split)))}): {run.loss:.5g}.'
  predicted += (f' 95% interval of this run: {interval(run.run_ci95)}; of the law there: {interval(run.law_ci95)}.'
                if run.run_ci95 else ' No interval: the runs were not resampled.')
  paragraphs = [
      f'The compute-optimal run at {number(best["flops"])} training FLOPs. {MARK}.', '',
      f'  python -m vit_jax.main --config={shlex.quote(path)}', '', predicted, '',
      f'The law: {law["diagnostics"]["equation"]}; {coefficients}. Form {law["form"]}, fitted to n = {law["n"]} runs '
      f'({law["objective"]["name"]}); N counts {run.count}. This run costs {run.beyond:.3g} times as much as '
      'the largest fitted one. Made by', '', f'  {command}', '',
      f'The law\'s optimum is N* = {number(best["params"])}, D* = {number(best["examples"])} '
      f'({analysis.cost.describe()}). The nearest shape of the ladder has N = {number(run.params)}; the budget then '
      f'buys D = {number(run.examples)} examples, {run.epochs:.3g} epochs, in {run.steps} steps. Learning rate: '
      f'{run.rate.words()}.']
  paragraphs += [f'Not covered by a rule: {"; ".join(run.notes)}.'] if run.notes else []
  lines = [line for text in paragraphs for line in (textwrap.wrap(text, 120) if text[:2] != '  ' else [text]) or ['']]
  return printable('\n'.join(lines), keep='\n').replace('\\', '\\\\').replace('"""', '\\"\\"\\"') + '\n'
