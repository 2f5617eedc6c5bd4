"""Fits a scaling law to logs: python -m vit_jax.law DIR_OR_TABLE... --form=chinchilla --holdout=largest:3 --out=OUT

The form is a built-in one, or an expression over columns, such as --form='E + A/width^a + B/depth^b + G/D^c'. Reads
run folders (or folders of them) and tables (CSV, TSV, JSON, JSONL), local or in a bucket. Prints the law with its
intervals and a verdict. With --out it writes OUT/law.json, OUT/report.html and figures (PNG and SVG). With --budget=C
--write_config=next.py it writes the recipe of the compute-optimal run at C FLOPs, with the predicted loss in its
docstring.
"""

import math
import os
import shlex

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError, nearest

_FORM = flags.DEFINE_string('form', 'auto', 'power, power_offset, shifted_power, m4 or zhai (in --x); chinchilla, '
                            'chinchilla_tied (alpha = beta), overtrain, data_constrained (in params, examples); auto; '
                            "or an expression such as 'E + A/N^alpha + B/D^beta'.")
_START = flags.DEFINE_string('start', '', 'Bounds and starts of the coefficients of such an expression, such as '
                             'alpha=0.1..1,E>0,k<5,c=2.')
_METRIC = flags.DEFINE_string('metric', 'loss', 'The metric to predict: a column, or SPLIT/NAME. Without a split, runs '
                              'are read on val.')
_X = flags.DEFINE_string('x', None, 'The input of forms of one input: examples, params, flops, any column, or an '
                         'expression such as params*examples.')
_CURVES = flags.DEFINE_string('curves', None, 'Fit whole learning curves: every evaluation of a run or a trunk is a '
                              'point with the areas of its learning rate (Tissue et al. 2024). A number is the decay '
                              'of annealing, such as 0.999; auto chooses it.')
_OBJECTIVE = flags.DEFINE_string('objective', 'log_huber', 'log_huber, log_lsq or lsq.')
_DELTA = flags.DEFINE_float('delta', 1e-3, 'The log residual at which the Huber loss becomes linear.', 1e-12, 1e3)
_BOOTSTRAP = flags.DEFINE_integer('bootstrap', 1000, 'Refits to resampled runs, for the intervals; 0 for none.', 0,
                                  1_000_000)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the resampling.', 0, 2**32 - 1)
_WHERE = flags.DEFINE_string('where', None, "Read only rows that this is true of, such as 'params>=1e6 and "
                             'not dataset==\"c4\"\'.')
_HOLDOUT = flags.DEFINE_string('holdout', None, "largest:K, comparisons such as 'flops>=1e21 or dataset==c4', or "
                               'column:NAME (rows where it is 0, false or "test").')
_GROUP = flags.DEFINE_string('group', None, 'Fit each value of this column separately. --group=folder separates sweeps '
                             'by the folder of their runs.')
_SHARE = flags.DEFINE_list('share', [], 'Coefficients that all groups have in common, such as alpha,beta: the groups '
                            'are fitted together, with a test of which coefficients differ.')
_SEPARATE = flags.DEFINE_list('separate', [], 'As --share of all coefficients but these.')
_THEN = flags.DEFINE_string('then', None, 'The law of a second metric from the first, with intervals through both, '
                            "such as 'error = lo + (hi-lo)*sigmoid(k*(loss-m))'.")
_TARGET = flags.DEFINE_string('target', None, 'Where to predict, such as params=1e9,examples=1e10; several with ; '
                              'between them.')
_REGISTER = flags.DEFINE_string('register', None, 'A file (.json) to write the predictions at --target to, before the '
                                'runs: --score grades them.')
_SCORE = flags.DEFINE_string('score', None, 'Grade the predictions that --register wrote to this file, or to the files '
                             'of this folder, on the runs that are there now.')
_DESIGN = flags.DEFINE_bool('design', False, 'Choose the runs that narrow the interval at --target most for a --budget '
                            'of FLOPs.')
_WITHIN = flags.DEFINE_string('within', None, 'The sizes and lengths that --design chooses from, such as '
                              'params=1e5..1e8,examples=1e6..1e9.')
_ASSUME = flags.DEFINE_string('assume', None, 'Coefficients and spread for a --design before any run, such as '
                              'E=0.3,A=40,alpha=0.4,B=300,beta=0.4,sigma=0.02.')
_WRITE_SWEEP = flags.DEFINE_string('write_sweep', None, 'A sweep to write (next.py) with the runs of --design.')
_RECIPE = flags.DEFINE_string('recipe', None, 'The recipe whose width is scaled for the sweep of a --design before any '
                              'run; muP carries its learning rate. Its FLOPs are counted.')
_COMPARE = flags.DEFINE_list('compare', [], 'Two groups, A,B: the compute that B needs for the loss of A, with an '
                             'interval and a p-value; "all" for every pair. Default: if there are two groups, these.')
_POOL = flags.DEFINE_list('pool', [], 'Columns in which the rows of one law may differ, such as classes or dataset.')
_FRONTIER = flags.DEFINE_integer('frontier', None, 'Fit the lower edge of a cloud: the best point in each of this many '
                                 'bins of size.', 2, 10_000)
_BEST_OF = flags.DEFINE_list('best_of', [], 'Columns that were tuned, such as learning_rate: of runs that differ only '
                             'in these and the seed, keep those with the best values on val.')
_BEST_BY = flags.DEFINE_string('best_by', '', 'The column that --best_of is best by; default: --metric. Of metrics '
                               'such as accuracy the highest is best, as the objectives declare it.')
_COLUMNS = flags.DEFINE_list('columns', [], 'OURS=THEIRS,...: names in the tables, such as params=N,loss=val/loss.')
_SIGMA = flags.DEFINE_string('sigma', None, 'A column with the standard deviation of each (log) value: points are '
                             'weighted by 1/sigma^2.')
_BUDGET = flags.DEFINE_list('budget', [], 'Budgets in FLOPs: print the compute-optimal size, length and loss for each.')
_WRITE_CONFIG = flags.DEFINE_string('write_config', None, 'A recipe to write (next.py): the compute-optimal run at '
                                    '--budget, with shapes and learning rates taken from the runs that were read.')
_OUT = flags.DEFINE_string('out', None, 'Folder for law.json, figures and report.html; default: write no files.')


def main(paths: list[str]) -> int:
  if paths and _SCORE.value:
    return _score(paths)
  _check_design(paths)
  if _DESIGN.value and not paths and _ASSUME.value:
    return _design_first()
  if not paths:
    raise UserError(f'expected run folders or tables: {commands.written("law")} DIR_OR_TABLE... [--form=chinchilla] '
                    '[--out=OUT]')
  from vit_jax import goodput
  from vit_jax.console import Console
  from vit_jax.scaling import analysis, law_page, registry, terminal, tuned

  if _WRITE_CONFIG.value and (len(_BUDGET.value) != 1 or _GROUP.value):
    group = f' and --group={_GROUP.value}' if _GROUP.value else ''
    raise UserError(f'--write_config={_WRITE_CONFIG.value} writes one run: expected one --budget and no --group, got '
                    f'--budget={",".join(_BUDGET.value)}{group}')
  apart = {'register': _REGISTER.value, 'design': _DESIGN.value, 'best_of': _BEST_OF.value,
           'frontier': _FRONTIER.value, 'write_config': _WRITE_CONFIG.value}
  if _CURVES.value and (with_ends := [name for name, value in apart.items() if value]):
    raise UserError(f'--{with_ends[0]} is about the ends of runs, and --curves={_CURVES.value} reads all of them; '
                    'leave one out')
  if _REGISTER.value:
    registry.check(_REGISTER.value, _TARGET.value, _BOOTSTRAP.value)
  loaded, settings = _load(paths)
  if _BEST_OF.value:
    higher = () if tuned.say_which_is_better(loaded) else _higher_is_better()
    loaded = tuned.best_of(loaded, _BEST_OF.value, _GROUP.value, _BEST_BY.value, higher)
  split = analysis.split_groups(loaded, _GROUP.value)
  if _FRONTIER.value:
    split = {name: tuned.frontier(group, _FRONTIER.value) for name, group in split.items()}
  pairs = analysis.pairs(list(split), _COMPARE.value)
  together = analysis.fit_together(split, settings)
  groups = analysis.analyse_groups(split, settings, together)
  if settings.budgets and not any(group.law['compute_optimal'] for group in groups.values()):
    raise UserError(f'--budget={",".join(_BUDGET.value)}: expected a form in params and examples, such as '
                    '--form=chinchilla')
  console = Console()
  terminal.show_all(console, groups)
  if together:
    terminal.show_shared(console, together.summary)
  _predict(console, loaded, groups, paths)
  multipliers = analysis.multipliers(groups, pairs)
  for row in multipliers:
    console.print(row['words'], highlight=False)
  if seconds := sum(loaded.time_spent.values()):
    console.print(f'time of all runs: {goodput.duration(seconds)}: {goodput.describe(loaded.time_spent)}',
                  highlight=False)
  if _OUT.value:
    message = law_page.write(_OUT.value, groups, multipliers, _command(paths), loaded.time_spent,
                             {'shared': together.summary} if together else {})
    console.print(f'written: {message}', highlight=False, soft_wrap=True)
  if _DESIGN.value:
    _design(console, groups, paths)
  if _WRITE_CONFIG.value:
    console.print(_write_config(groups[''], settings.budgets[0], paths), highlight=False, soft_wrap=True)
  return 0


def _load(paths):
  """The points, and the options of the analysis."""
  from vit_jax.scaling import analysis, chain, curve_law, curve_rows, points, written
  from vit_jax.scaling.minimize import Objective
  columns, budgets = _columns(_COLUMNS.value), tuple(_positive('budget', text) for text in _BUDGET.value)
  given = curve_rows.FORM if _CURVES.value and _FORM.value == 'auto' else _FORM.value
  text = given if written.is_written(given) else ''
  inputs = _inputs(text)
  load = lambda whole=None: points.load(paths, _METRIC.value, _x(inputs, text), columns, _GROUP.value, [
      name for name in inputs if name != 'x' and not text], _WHERE.value, _BEST_BY.value, _POOL.value, text,
      [chain.parse(_THEN.value)[0]] if _THEN.value else (), whole)
  starts = chain.starts(_START.value, _THEN.value, text)[0]
  form = lambda loaded: written.form(text, starts, loaded.columns) if text else given
  settings = lambda loaded: analysis.Settings(
      form(loaded), Objective(_OBJECTIVE.value, _DELTA.value), _BOOTSTRAP.value, _SEED.value, _HOLDOUT.value,
      _SIGMA.value, budgets, *map(tuple, (_POOL.value, _SHARE.value, _SEPARATE.value)))
  if not _CURVES.value:
    loaded = load()
    return loaded, settings(loaded)
  return curve_law.choose(lambda decay: load(curve_rows.Curves(_rates, decay)), settings, _decays(), _GROUP.value)


def _decays():
  """The decays of annealing that --curves names."""
  from vit_jax.scaling import curve_rows
  try:
    given = curve_rows.DECAYS if _CURVES.value == 'auto' else (float(_CURVES.value),)
  except ValueError:
    given = (math.nan,)
  if not all(0 <= decay < 1 for decay in given):
    raise UserError(f'--curves={_CURVES.value}: expected auto, or a decay from 0 to below 1, such as 0.999')
  return given


def _rates(config, steps):
  """The learning rate of each step [steps] of a run."""
  import numpy as np

  from vit_jax import schema
  from vit_jax.optimisation import schedule
  return config['optimizer']['learning_rate'] * schedule.multiplier(
      schema.cast(schedule.ScheduleConfig, config['schedule']), steps, np.arange(steps), np)


def _predict(console, loaded, groups, paths):
  """Predicts at the targets, of the second metric too, and registers it; adds `targets` and `then` to the laws."""
  from vit_jax.scaling import chain, registry, target, terminal
  targets = target.parse(_TARGET.value) if _TARGET.value else []
  predictions = []
  for name, group in groups.items():
    found = target.predict(group, targets) if targets else []
    group.law['targets'] = found
    if _THEN.value:
      starts = chain.starts(_START.value, _THEN.value, group.fit.form.name if _START.value else '')[1]
      link = chain.analyse(group, _THEN.value, starts, targets)
      group.law['then'] = link.summary
      terminal.show_link(console, name, link.summary)
      found = [*found, *link.summary['targets']]
    predictions += [{**row, 'group': name} for row in found]
  if predictions:
    terminal.show_targets(console, predictions)
  if _REGISTER.value:
    read = {'x': _X.value, 'columns': _columns(_COLUMNS.value), 'where': _WHERE.value, 'group': _GROUP.value,
            'form': _FORM.value}
    laws = {name: {'form': group.law['form'], 'coefficients': group.law['coefficients']}
            for name, group in groups.items()}
    registry.register(_REGISTER.value, loaded, predictions, {'command': _command(paths), 'laws': laws, 'read': read})
    console.print(f'registered: {_REGISTER.value}; grade it with --score={_REGISTER.value}', highlight=False,
                  soft_wrap=True)


def _higher_is_better():
  """The metrics of which the highest is best, for tables and old runs, which do not say it."""
  from vit_jax.training import evaluate
  return evaluate.higher_is_better()


def _aim():
  """The target, the budget and their check, for --design."""
  from vit_jax.scaling import target
  targets = target.parse(_TARGET.value) if _TARGET.value else []
  if len(targets) != 1 or len(_BUDGET.value) != 1 or _GROUP.value:
    raise UserError(f'--design: expected one --target, one --budget and no --group, got --target={_TARGET.value or ""} '
                    f'--budget={",".join(_BUDGET.value)}')
  target.columns(targets, ('params', 'examples'), None)
  return targets[0], _positive('budget', _BUDGET.value[0])


def _check_design(paths):
  """Refuses options of --design that nothing would read."""
  of_design = {'within': _WITHIN.value, 'assume': _ASSUME.value, 'write_sweep': _WRITE_SWEEP.value,
               'recipe': _RECIPE.value}
  for name, value in of_design.items():
    if value and not _DESIGN.value:
      raise UserError(f'--{name}={value} is an option of --design, which is not given')
    if value and name in ('assume', 'recipe') and paths:
      raise UserError(f'--{name}={value} is for a --design before any run; {paths[0]} has runs, which say it')
  if _RECIPE.value and not _ASSUME.value:
    raise UserError(f'--recipe={_RECIPE.value}: expected --assume too, the coefficients that are assumed')


def _design_first():
  """Chooses runs before any is trained, from assumed coefficients, and writes their sweep."""
  from vit_jax.console import Console
  from vit_jax.scaling import design, estimate, written
  from vit_jax.scaling.frontier import Cost
  if _WRITE_SWEEP.value and not _RECIPE.value:
    raise UserError(f'--write_sweep={_WRITE_SWEEP.value}: there are no runs to take shapes from; expected --recipe, '
                    'such as --recipe=fashion_mnist, whose width is scaled')
  aim, budget = _aim()
  sizes, lengths = design.ranges(_WITHIN.value, (0.0, 0.0), (0.0, 0.0))
  text = _FORM.value if written.is_written(_FORM.value) else ''
  form = written.form(text, '', ('params', 'examples')) if text else estimate.form_class(
      'chinchilla' if _FORM.value == 'auto' else _FORM.value)
  law = design.assume(_ASSUME.value, form, sizes, lengths)
  console, origin = Console(), _origin_of_recipe() if _RECIPE.value else None
  if origin is None:
    console.print('FLOPs are 6 N D, those of one token per example; --recipe counts those of its examples',
                  highlight=False)
  cost, cooldown = (origin.cost, origin.cooldown) if origin else (Cost(assumed=True), 0.3)
  _chosen(console, law, aim, (sizes, lengths, cost, budget, cooldown), origin, [])
  return 0


def _origin_of_recipe():
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # only shapes are needed, so leave accelerators alone
  from vit_jax.sweeps import next_sweep
  return next_sweep.of_recipe(_RECIPE.value)


def _design(console, groups, paths):
  """Chooses the next runs from a law, and writes their sweep."""
  from vit_jax.scaling import design
  from vit_jax.sweeps import next_sweep
  (aim, budget), group = _aim(), groups['']
  law, columns = design.of_fit(group.fit, group.points.take(group.fitted).clusters), group.points.columns
  spans = [(values.min(), max(values.max(), min(aim[name], 4 * values.max())))
           for name, values in ((name, columns[name]) for name in ('params', 'examples'))]
  sizes, lengths = design.ranges(_WITHIN.value, *spans)
  origin = next_sweep.of_runs(group.points, sizes[0], lengths[0]) if _WRITE_SWEEP.value else None
  _chosen(console, law, aim, (sizes, lengths, group.cost, budget, next_sweep.cooldown(group.points)), origin, paths)


def _chosen(console, law, aim, candidates, origin, paths):
  """Shows the design of a law and a target, and writes its sweep.

  Candidates are sizes, lengths, their cost, the budget and the cooldown. With an origin, sizes are of real shapes.
  """
  from vit_jax.scaling import design, terminal
  sizes, *rest = candidates
  given = origin.real(sizes) if origin else sizes, *rest
  found = design.choose(law, aim, *given)
  terminal.show_design(console, found, design.grid_of_equal_flops(law, aim, *given))
  if _WRITE_SWEEP.value:
    from vit_jax.sweeps import next_sweep
    command = f'{_command(paths)} --design --write_sweep={shlex.quote(_WRITE_SWEEP.value)}'
    console.print(next_sweep.write(found, origin, _WRITE_SWEEP.value, command), highlight=False, soft_wrap=True)


def _score(paths):
  """Grades registered predictions; writes OUT/score.json."""
  import json

  from vit_jax import durable
  from vit_jax.console import Console
  from vit_jax.scaling import points, registry, terminal, written

  def load(metric, read):
    text = read['form'] if written.is_written(read['form']) else ''
    return points.load(paths, metric, read['x'], read['columns'], read['group'], (),
                       _WHERE.value or read['where'], form=text)

  found, console = registry.score(_SCORE.value, load), Console()
  terminal.show_score(console, found)
  if _OUT.value:
    durable.write(os.path.join(_OUT.value, 'score.json'), json.dumps(found, indent=1) + '\n')
    console.print(f'written: {_OUT.value}/score.json', highlight=False, soft_wrap=True)
  return 0


def _write_config(group, budget, paths):
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # only shapes are needed, so leave accelerators alone
  from vit_jax.sweeps import next_run
  path, run = _WRITE_CONFIG.value, next_run.choose(group, budget)
  next_run.write(run, group, path, f'{_command(paths)} --write_config={shlex.quote(path)}')
  return (f'next run: {run.words()}\nwritten: {path}; train it with '
          + commands.written('train', f'--config={shlex.quote(path)}'))


def _inputs(text):
  """The columns that the form reads: of a written form the names that may be columns, of auto none."""
  from vit_jax.scaling import estimate, written
  if _START.value and not (text or _THEN.value):
    raise UserError(f'--start={_START.value}: expected a form that is an expression, such as '
                    f"--form='E + A/N^alpha + B/D^beta', got --form={_FORM.value}")
  if text:
    return written.names(text)
  return () if _FORM.value == 'auto' else estimate.form_class(_FORM.value).inputs


def _x(inputs, text):
  """The column of x; None for forms in params and examples."""
  if inputs and 'x' not in inputs:
    if _X.value:
      raise UserError(f'--x={_X.value}: expected no --x, because --form={text or _FORM.value} '
                      + ('has no x in it' if text else f'reads {", ".join(inputs)}'))
    return None
  if inputs and _X.value is None and not text:
    raise UserError(f'--form={_FORM.value}: expected --x, the input column, such as examples, params or flops')
  return _X.value


def _columns(pairs):
  from vit_jax.scaling import chain, points
  out = {}
  for pair in pairs:
    ours, equals, theirs = pair.partition('=')
    known = (*points.AXES, *points.LABELS, _METRIC.value, *([_X.value] if _X.value else []),
             *([chain.parse(_THEN.value)[0]] if _THEN.value else []))
    if not (ours and equals and theirs):
      raise UserError(f'--columns: expected OURS=THEIRS, such as params=N, got {pair!r}')
    if ours not in known:
      raise UserError(f'--columns={pair}: unknown column {ours!r}{nearest(ours, known)}')
    out[ours] = theirs
  return out


def _positive(flag, text):
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not (value > 0 and math.isfinite(value)):
    raise UserError(f'--{flag}={text}: expected a number above 0, such as 1e18')
  return value


def _command(paths):
  """The command that reproduces this law."""
  given = [_FORM, _START, _METRIC, _X, _OBJECTIVE, _DELTA, _BOOTSTRAP, _SEED, _WHERE, _HOLDOUT, _GROUP, _SHARE,
           _SEPARATE, _CURVES, _THEN, _TARGET, _WITHIN, _ASSUME, _RECIPE, _COMPARE, _POOL, _FRONTIER, _BEST_OF,
           _BEST_BY, _COLUMNS, _SIGMA, _BUDGET]
  texts = [(flag.name, ','.join(flag.value) if isinstance(flag.value, list) else flag.value) for flag in given]
  arguments = [*paths, *(f'--{name}={text}' for name, text in texts if text not in (None, ''))]
  return shlex.join(['python', '-m', 'vit_jax.law', *arguments])


if __name__ == '__main__':
  cli.run(main, positional=True)
