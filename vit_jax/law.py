"""Fits a scaling law to logs: python -m vit_jax.law DIR_OR_TABLE... --form=chinchilla --holdout=largest:3 --out=OUT

The form is a built-in one, or an expression over columns, such as --form='E + A/width^a + B/depth^b + G/D^c'. Reads
run folders (or folders of them) and tables (CSV, TSV, JSON, JSONL), local or in a bucket. Prints the law with its
intervals and a verdict. With --out it writes OUT/law.json, OUT/report.html and figures (PNG and SVG). With --budget=C
--write_config=next.py it writes the recipe of the compute-optimal run at C FLOPs, with the predicted loss in its
docstring.
"""

import os
import shlex

from absl import flags

from vit_jax import cli, commands, law_options
from vit_jax.errors import UserError
from vit_jax.law_options import Options

_OPTIONS = law_options.define()
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
_WRITE_CONFIG = flags.DEFINE_string('write_config', None, 'A recipe to write (next.py): the compute-optimal run at '
                                    '--budget, with shapes and learning rates taken from the runs that were read.')
_OUT = flags.DEFINE_string('out', None, 'Folder for law.json, figures and report.html; default: write no files.')


def main(paths: list[str]) -> int:
  options = law_options.of_flags(_OPTIONS)
  if paths and _SCORE.value:
    return _score(paths, options)
  _check_design(paths)
  if _DESIGN.value and not paths and _ASSUME.value:
    return _design_first(options)
  if not paths:
    raise UserError(f'expected run folders or tables: {commands.written("law")} DIR_OR_TABLE... [--form=chinchilla] '
                    '[--out=OUT]')
  from vit_jax import goodput, law_fit
  from vit_jax.console import Console
  from vit_jax.scaling import law_page, registry, terminal

  _check_together(options)
  if _REGISTER.value:
    registry.check(_REGISTER.value, options.target, options.bootstrap)
  found, console = law_fit.fit(paths, options), Console()
  terminal.show_fitted(console, found.groups, found.together, found.multipliers)
  if _REGISTER.value:
    _register(console, found, options, paths)
  spent = found.loaded.time_spent
  if seconds := sum(spent.values()):
    console.print(f'time of all runs: {goodput.duration(seconds)}: {goodput.describe(spent)}', highlight=False)
  if _OUT.value:
    message = law_page.write(_OUT.value, found.groups, found.multipliers, _command(paths, options), spent,
                             {'shared': found.together.summary} if found.together else {})
    console.print(f'written: {message}', highlight=False, soft_wrap=True)
  if _DESIGN.value:
    _design(console, found.groups[''], paths, options)
  if _WRITE_CONFIG.value:
    console.print(_write_config(found.groups[''], paths, options), highlight=False, soft_wrap=True)
  return 0


def _check_together(options):
  """Refuses what cannot be asked for together, and a folder that is a file."""
  if _OUT.value and os.path.isfile(_OUT.value):
    raise UserError(f'--out={_OUT.value}: expected a folder, and there is a file of that name')
  if _WRITE_CONFIG.value and (len(options.budget) != 1 or options.group):
    group = f' and --group={options.group}' if options.group else ''
    raise UserError(f'--write_config={_WRITE_CONFIG.value} writes one run: expected one --budget and no --group, got '
                    f'--budget={_numbers(options.budget)}{group}')
  apart = {'register': _REGISTER.value, 'design': _DESIGN.value, 'write_config': _WRITE_CONFIG.value}
  if options.curves and (with_ends := [name for name, value in apart.items() if value]):
    raise UserError(f'--{with_ends[0]} is about the ends of runs, and --curves={options.curves} reads all of them; '
                    'leave one out')


def _register(console, found, options, paths):
  from vit_jax.scaling import registry, target
  read = {'x': options.x, 'columns': dict(options.columns), 'where': options.where, 'group': options.group,
          'form': options.form}
  laws = {name: {'form': group.law['form'], 'coefficients': group.law['coefficients']}
          for name, group in found.groups.items()}
  registry.register(_REGISTER.value, found.loaded, target.asked(found.groups),
                    {'command': _command(paths, options), 'laws': laws, 'read': read})
  console.print(f'registered: {_REGISTER.value}; grade it with --score={_REGISTER.value}', highlight=False,
                soft_wrap=True)


def _aim(options):
  """The target, the budget and their check, for --design."""
  from vit_jax.scaling import target
  targets = target.parse(options.target) if options.target else []
  if len(targets) != 1 or len(options.budget) != 1 or options.group:
    raise UserError('--design: expected one --target, one --budget and no --group, got '
                    f'--target={options.target or ""} --budget={_numbers(options.budget)}')
  target.columns(targets, ('params', 'examples'), None)
  return targets[0], options.budget[0]


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


def _design_first(options):
  """Chooses runs before any is trained, from assumed coefficients, and writes their sweep."""
  from vit_jax.console import Console
  from vit_jax.scaling import design, estimate, written
  from vit_jax.scaling.frontier import Cost
  if _WRITE_SWEEP.value and not _RECIPE.value:
    raise UserError(f'--write_sweep={_WRITE_SWEEP.value}: there are no runs to take shapes from; expected --recipe, '
                    'such as --recipe=fashion_mnist, whose width is scaled')
  aim, budget = _aim(options)
  sizes, lengths = design.ranges(_WITHIN.value, (0.0, 0.0), (0.0, 0.0))
  text = options.form if written.is_written(options.form) else ''
  form = written.form(text, '', ('params', 'examples')) if text else estimate.form_class(
      'chinchilla' if options.form == 'auto' else options.form)
  law = design.assume(_ASSUME.value, form, sizes, lengths)
  console, origin = Console(), _origin_of_recipe() if _RECIPE.value else None
  if origin is None:
    console.print('FLOPs are 6 N D, those of one token per example; --recipe counts those of its examples',
                  highlight=False)
  cost, cooldown = (origin.cost, origin.cooldown) if origin else (Cost(assumed=True), 0.3)
  _chosen(console, law, aim, (sizes, lengths, cost, budget, cooldown), origin, _command([], options))
  return 0


def _origin_of_recipe():
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # only shapes are needed, so leave accelerators alone
  from vit_jax.sweeps import next_sweep
  return next_sweep.of_recipe(_RECIPE.value)


def _design(console, group, paths, options):
  """Chooses the next runs from a law, and writes their sweep."""
  from vit_jax.scaling import design
  from vit_jax.sweeps import next_sweep
  (aim, budget), columns = _aim(options), group.points.columns
  law = design.of_fit(group.fit, group.points.take(group.fitted).clusters)
  spans = [(values.min(), max(values.max(), min(aim[name], 4 * values.max())))
           for name, values in ((name, columns[name]) for name in ('params', 'examples'))]
  sizes, lengths = design.ranges(_WITHIN.value, *spans)
  origin = next_sweep.of_runs(group.points, sizes[0], lengths[0]) if _WRITE_SWEEP.value else None
  _chosen(console, law, aim, (sizes, lengths, group.cost, budget, next_sweep.cooldown(group.points)), origin,
          _command(paths, options))


def _chosen(console, law, aim, candidates, origin, command):
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
    command += f' --design --write_sweep={shlex.quote(_WRITE_SWEEP.value)}'
    console.print(next_sweep.write(found, origin, _WRITE_SWEEP.value, command), highlight=False, soft_wrap=True)


def _score(paths, options):
  """Grades registered predictions; writes OUT/score.json."""
  import json

  from vit_jax import durable
  from vit_jax.console import Console
  from vit_jax.scaling import points, registry, terminal, written

  def load(metric, read):
    text = read['form'] if written.is_written(read['form']) else ''
    return points.load(paths, metric, read['x'], read['columns'], read['group'], (),
                       options.where or read['where'], form=text)

  found, console = registry.score(_SCORE.value, load), Console()
  terminal.show_score(console, found)
  if _OUT.value:
    durable.write(os.path.join(_OUT.value, 'score.json'), json.dumps(found, indent=1) + '\n')
    console.print(f'written: {_OUT.value}/score.json', highlight=False, soft_wrap=True)
  return 0


def _write_config(group, paths, options):
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # only shapes are needed, so leave accelerators alone
  from vit_jax.sweeps import next_run
  path, run = _WRITE_CONFIG.value, next_run.choose(group, options.budget[0])
  next_run.write(run, group, path, f'{_command(paths, options)} --write_config={shlex.quote(path)}')
  return (f'next run: {run.words()}\nwritten: {path}; train it with '
          + commands.written('train', f'--config={shlex.quote(path)}'))


def _numbers(budgets):
  from vit_jax.scaling.verdict import number
  return ','.join(map(number, budgets))


def _command(paths: list[str], options: Options) -> str:
  """The command that reproduces this law."""
  design = {'within': _WITHIN.value, 'assume': _ASSUME.value, 'recipe': _RECIPE.value}
  return shlex.join(['python', '-m', 'vit_jax.law', *paths, *options.words(),
                     *(f'--{name}={value}' for name, value in design.items() if value)])


if __name__ == '__main__':
  cli.run(main, positional=True)
