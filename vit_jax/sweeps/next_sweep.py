"""The sweep of a design: its sizes and lengths, as the nearest shapes of the ladder, in a file that can be run."""

import collections
import copy
import dataclasses
import math
import shlex
import textwrap

from etils import epath

from vit_jax import durable
from vit_jax.errors import UserError
from vit_jax.optimisation import schedule
from vit_jax.printable import printable
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.design import Design
from vit_jax.scaling.points import Points
from vit_jax.sweeps import ladder as ladder_lib
from vit_jax.sweeps import next_run
from vit_jax.training import config as run_config


def cooldown(points: Points) -> float | None:
  """The share of a run that is its own, where its lengths are branches of a trunk; None where runs share nothing."""
  schedules = [(row.get('_config') or {}).get('schedule') or {} for row in points.rows]
  shares = {found.get('cooldown_fraction') for found in schedules if found.get('name') == 'wsd'}
  return shares.pop() if len(shares) == 1 and all(found.get('name') == 'wsd' for found in schedules) else None


def write(design: Design, analysis: Analysis, path: str, command: str) -> str:
  """Writes the sweep of a design; it holds the recipe too. Returns a message.

  Raises:
    UserError: `path` does not end in .py or is a file of someone else, or see `next_run.choose`.
  """
  file = epath.Path(path)
  if file.suffix != '.py':
    raise UserError(f'--write_sweep={path}: expected a file name that ends in .py')
  if file.exists() and next_run.MARK not in file.read_text():
    raise UserError(f'--write_sweep={path}: the file exists and was not written by this program; give another name')
  points, first = analysis.points, design.trunks[0]
  configs = next_run.configs_of(points)
  nearest = next_run.nearest_run(points, first.params, first.examples[0])
  base = copy.deepcopy(configs[nearest])
  sizes = next_run.Sizes(base, next_run.count_of(points))
  next_run.check_counts(points, nearest, sizes)
  ladder = ladder_lib.read([config['model'] for config in configs])
  rate = next_run.rate_rule(points, configs, ladder.dial)
  following = collections.defaultdict(lambda: max(config.get('seed') or 0 for config in configs) + 1)
  trunks: dict[tuple, list[int]] = {}
  for trunk in design.trunks:
    shape = next_run.nearest_shape(ladder, sizes, trunk.params)
    steps = sorted({max(1, round(examples / base['data']['batch_size'])) for examples in trunk.examples})
    middle = math.sqrt(trunk.examples[0] * trunk.examples[-1])
    overrides = {f'model.{name}': value for name, value in shape.items()}
    overrides['optimizer.learning_rate'] = float(f'{rate(shape[ladder.dial], middle):.3g}')
    size = tuple(shape.items())
    trunks.setdefault((tuple(overrides.items()), tuple(steps)), []).append(following[size])
    following[size] += 1
  base['train'] = dataclasses.asdict(schedule.LengthConfig(steps=min(steps[0] for _, steps in trunks)))
  config = run_config.cast(base)
  for _, steps in trunks:
    schedule.check(config.schedule, steps[0])
  durable.write(file, _source(design, config, trunks, cooldown(points), path, command))
  return f'written: {path}; train it with python -m vit_jax.sweep --sweep={shlex.quote(path)} --workdir=WORKDIR'


def _source(design, config, trunks, share, path, command):
  lines = [f'The runs that narrow the target most. {next_run.MARK}.', '', design.describe() + '.', '',
           f'  python -m vit_jax.sweep --sweep={shlex.quote(path)} --workdir=WORKDIR', '', 'Made by', '',
           f'  {command}']
  wrapped = [[line] if line[:2] == '  ' else textwrap.wrap(line, 118) or [''] for line in lines]
  text = printable('\n'.join(part for parts in wrapped for part in parts), keep='\n')
  text = text.replace('\\', '\\\\').replace('"""', '\\"\\"\\"')
  rows = ''.join(f'    ({dict(overrides)!r},\n     {tuple(seeds)!r}, {steps!r}),\n'
                 for (overrides, steps), seeds in trunks.items())
  lengths = "sweeps.axis('train.steps', *steps)" if share is None else f'sweeps.branches(steps, {share!r})'
  return (f'"""{text}\n"""\n\nfrom vit_jax import config, sweeps\n\n'
          f'TRUNKS = [  # shape and learning rate, seeds, steps\n{rows}]\n\n\n{next_run.source(config)}\n\n'
          f'def get_sweep():\n  return sweeps.Sweep(__file__, sweeps.chain(*(\n'
          f"      sweeps.product([shape], sweeps.axis('seed', *seeds), {lengths})\n"
          '      for shape, seeds, steps in TRUNKS)))\n')
