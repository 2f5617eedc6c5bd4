"""The sweep of a design: its sizes and lengths, as the nearest shapes of a ladder, in a file that can be run.

The ladder is that of runs, or before any run that of one recipe whose width is scaled; muP carries its learning rate.
"""

import collections
import copy
import dataclasses
import math
import shlex
import textwrap
from collections.abc import Callable

import numpy as np
from etils import epath

from vit_jax import durable, recipe, schema
from vit_jax.errors import UserError
from vit_jax.optimisation import schedule
from vit_jax.printable import printable
from vit_jax.scaling import frontier
from vit_jax.scaling.design import Design
from vit_jax.scaling.frontier import Cost
from vit_jax.scaling.points import Points
from vit_jax.sweeps import ladder as ladder_lib
from vit_jax.sweeps import next_run
from vit_jax.training import config as run_config


def cooldown(points: Points) -> float | None:
  """The share of a run that is its own, where its lengths are branches of a trunk; None where runs share nothing."""
  schedules = [(row.get('_config') or {}).get('schedule') or {} for row in points.rows]
  shares = {found.get('cooldown_fraction') for found in schedules if found.get('name') == 'wsd'}
  return shares.pop() if len(shares) == 1 and all(found.get('name') == 'wsd' for found in schedules) else None


@dataclasses.dataclass(frozen=True)
class Origin:
  """What the runs of a design are made of.

  Attributes:
    base: the config of a run, of which shape, length, rate and seed are replaced.
    sizes: counts its parameters and FLOPs.
    ladder: the shapes.
    rate: the learning rate at a value of the ladder's dial and a number of examples.
    seed: the first seed that is new.
    cooldown: see `cooldown`.
  """
  base: dict
  sizes: next_run.Sizes
  ladder: ladder_lib.Ladder
  rate: Callable[[float, float], float]
  seed: int
  cooldown: float | None

  @property
  def cost(self) -> Cost:
    """The FLOPs of an example at the shapes around the base, as a power of their parameters."""
    shapes = [self.ladder.shape(rung) for rung in (1, 2, 4, 8)]
    params, flops = (np.array([count(shape) for shape in shapes], float)
                     for count in (self.sizes.params, self.sizes.flops))
    return frontier.cost_law(params, np.ones(len(params)), flops)


  def real(self, params: np.ndarray) -> np.ndarray:
    """The sizes of the shapes that are nearest to some sizes, in ascending order, each once.

    Raises:
      UserError: all are nearest to one shape.
    """
    shapes = [next_run.nearest_shape(self.ladder, self.sizes, n) for n in params]
    found = sorted({self.sizes.params(shape) for shape in shapes})
    if len(found) < 2:
      raise UserError(f'--design: all sizes from {min(params):.3g} to {max(params):.3g} params are nearest to one '
                      f'shape, {self.ladder.dial} {shapes[0][self.ladder.dial]}, and the ladder goes in steps of '
                      f'{self.ladder.step}; expected a wider --within, or narrower heads')
    return np.array(found, float)


def of_runs(points: Points, params: float, examples: float) -> Origin:
  """The ladder of the runs that there are; all else is as in the run nearest to a size and length.

  Raises:
    UserError: see `next_run.choose`.
  """
  configs = next_run.configs_of(points)
  nearest = next_run.nearest_run(points, params, examples)
  base = copy.deepcopy(configs[nearest])
  sizes = next_run.Sizes(base, next_run.count_of(points))
  next_run.check_counts(points, nearest, sizes)
  ladder = ladder_lib.read([config['model'] for config in configs])
  return Origin(base, sizes, ladder, next_run.rate_rule(points, configs, ladder.dial),
                max(config.get('seed') or 0 for config in configs) + 1, cooldown(points))


def of_recipe(spec: str) -> Origin:
  """The ladder of one recipe: its width is scaled, with heads and MLP in proportion. N counts all parameters.

  Raises:
    UserError: see `recipe.load`, or the recipe's model has no width, so no shapes follow from it.
  """
  base = run_config.cast(recipe.load_recipe(spec))
  model = schema.plain(base.model)
  if not model.get('width'):
    raise UserError(f'--recipe={spec}: expected a model with a width to scale, such as --recipe=fashion_mnist; '
                    f'{base.family} has none')
  values = schema.plain(base)
  if base.parametrisation.name == 'standard':
    values['parametrisation'] |= {'name': 'mup', 'base_width': model['width'], 'base_depth': model.get('depth')}
  doubled = model | {name: 2 * model[name] for name in ('width', 'mlp_dim', 'num_heads') if model.get(name)}
  schedule_config = base.schedule
  return Origin(values, next_run.Sizes(values, 'params'), ladder_lib.read([model, doubled]),
                lambda *_: base.optimizer.learning_rate, base.seed,
                schedule_config.cooldown_fraction if schedule_config.name == 'wsd' else None)


def write(design: Design, origin: Origin, path: str, command: str) -> str:
  """Writes the sweep of a design; it holds the recipe too. Returns a message.

  Raises:
    UserError: `path` does not end in .py or is a file of someone else.
  """
  file = epath.Path(path)
  if file.suffix != '.py':
    raise UserError(f'--write_sweep={path}: expected a file name that ends in .py')
  if file.exists() and next_run.MARK not in file.read_text():
    raise UserError(f'--write_sweep={path}: the file exists and was not written by this program; give another name')
  base, ladder = copy.deepcopy(origin.base), origin.ladder
  following = collections.defaultdict(lambda: origin.seed)
  trunks: dict[tuple, list[int]] = {}
  for trunk in design.trunks:
    shape = next_run.nearest_shape(ladder, origin.sizes, trunk.params)
    steps = sorted({max(1, round(examples / base['data']['batch_size'])) for examples in trunk.examples})
    middle = math.sqrt(trunk.examples[0] * trunk.examples[-1])
    overrides = {f'model.{name}': value for name, value in shape.items()}
    overrides['optimizer.learning_rate'] = float(f'{origin.rate(shape[ladder.dial], middle):.3g}')
    size = tuple(shape.items())
    trunks.setdefault((tuple(overrides.items()), tuple(steps)), []).append(following[size])
    following[size] += 1
  base['train'] = dataclasses.asdict(schedule.LengthConfig(steps=min(steps[0] for _, steps in trunks)))
  config = run_config.cast(base)
  for _, steps in trunks:
    schedule.check(config.schedule, steps[0])
  durable.write(file, _source(design, config, trunks, origin.cooldown, path, command))
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
