"""The plan of a sweep: what each run is, needs and shares with others, without compiling anything.

`make` needs JAX and the devices. The sweep calls it in a separate process, so that the devices are free for the runs.
A plan is plain data that any launcher can render.
"""

import collections
import copy
import dataclasses
import functools
import numbers
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from vit_jax import recipe as recipe_lib
from vit_jax.errors import UserError
from vit_jax.sweeps import spec

STEP_FLOOR = 1000  # shorter runs, with 64 images per step, did not follow the law of the others (Fashion-MNIST ladder)
_LENGTHS = ('steps', 'epochs', 'examples', 'flops')
_LONGEST_NAME = 80


@dataclasses.dataclass(frozen=True)
class PlannedRun:
  """One run of a sweep.

  Attributes:
    name: distinguishes it from the sweep's other runs; safe in a path.
    config_hash: its identity.
    arguments: the arguments of vit_jax.main, without --workdir.
    params: the number of parameters.
    steps: its length.
    examples: the training examples that it sees.
    flops_per_example: training FLOPs per example.
    trunk: the hash of the trunk that it can share with others.
    branch_step: the step at which it leaves the trunk.
    program: equal for runs that can be trained together; None: it is trained alone.
  """
  name: str
  config_hash: str
  arguments: tuple[str, ...]
  params: int
  steps: int
  examples: int
  flops_per_example: int
  trunk: str | None = None
  branch_step: int = 0
  program: str | None = None

  @property
  def flops(self) -> int:
    """Training FLOPs if it runs alone."""
    return self.examples * self.flops_per_example


@dataclasses.dataclass(frozen=True)
class PlannedTrunk:
  """The stable phase that several runs share. It is trained up to the last of `branch_steps`."""
  trunk_hash: str
  arguments: tuple[str, ...]
  branch_steps: tuple[int, ...]
  batch_size: int
  flops_per_example: int
  program: str | None = None  # as in PlannedRun

  @property
  def steps(self) -> int:
    return self.branch_steps[-1]

  @property
  def flops(self) -> int:
    return self.steps * self.batch_size * self.flops_per_example


@dataclasses.dataclass(frozen=True)
class Plan:
  """A sweep that has been checked."""
  runs: tuple[PlannedRun, ...]
  trunks: tuple[PlannedTrunk, ...]
  notes: tuple[str, ...]  # for the user
  platform: str  # of the devices: 'cpu', 'gpu', 'tpu'
  matmul_speed: float  # FLOP/s of all devices together in a large matmul

  @property
  def flops_alone(self) -> int:
    """Training FLOPs if no run shared a trunk."""
    return sum(run.flops for run in self.runs)

  @property
  def flops(self) -> int:
    """Training FLOPs with each trunk trained once."""
    shared = sum(run.branch_step * run.examples // run.steps * run.flops_per_example for run in self.runs if run.trunk)
    return self.flops_alone - shared + sum(trunk.flops for trunk in self.trunks)


def make(sweep_spec: str) -> Plan:
  """The plan of a sweep file. Errors in any run are raised here, before anything runs.

  Raises:
    UserError: the sweep file, the recipe or a run is invalid; the message names it.
  """
  import jax

  from vit_jax.cost import hardware
  from vit_jax.training import run as run_lib
  configs, names, notes = read(sweep_spec, run_lib.check)
  speed = hardware.matmul_speed(jax.devices()[0]) * jax.device_count()
  return _plan(_prepare(configs, names), configs, notes, jax.default_backend(), speed)


def elsewhere(configs: dict, names: Sequence[str], notes: Sequence[str], sizes: Sequence[tuple[int, int, int]],
              peak_flops: float) -> Plan:
  """The plan of a sweep for absent TPUs and data.

  Args:
    configs, names, notes: as returned by `read`.
    sizes: (parameters, steps, training FLOPs per image) of each run.
    peak_flops: FLOP/s of all chips together.
  """
  runs = [_planned(name, identity, *configs[identity], *size)
          for name, identity, size in zip(names, configs, sizes, strict=True)]
  return _plan(runs, configs, notes, 'tpu', peak_flops)


def _plan(runs, configs, notes, platform, matmul_speed):
  runs, trunks = _share_trunks(runs, configs)
  short = [run for run in runs if run.steps < STEP_FLOOR]
  if short:
    fewest = min(short, key=lambda run: run.steps)
    notes = [*notes, f'{len(short)} of {len(runs)} runs have fewer than {STEP_FLOOR:,} steps ({fewest.name}: '
             f'{fewest.steps:,}): such short runs tend not to follow the law of longer ones']
  return Plan(tuple(runs), tuple(trunks), tuple(notes), platform, matmul_speed)


def _planned(name, identity, arguments, config, params, steps, flops_per_example):
  return PlannedRun(name, identity, arguments, params, steps, steps * config.data.batch_size, flops_per_example,
                    program=_program(config))


def _program(config):
  """A hash of the fields that packed runs must share; None if the run cannot be packed."""
  from vit_jax.training import config as run_config
  from vit_jax.training import packed
  if not packed.can_be_packed(config):
    return None
  return run_config.run_hash(run_config.program(config), without=())


def read(sweep_spec: str, check: Callable[[Any], Any] | None = None
         ) -> tuple[dict[str, tuple[tuple[str, ...], Any]], list[str], list[str]]:
  """Reads the runs of a sweep file, without devices and data: ({config hash: (arguments, RunConfig)}, names, notes).

  Args:
    sweep_spec: FILE.py or FILE.py:ARG.
    check: looks at each RunConfig before any weights are read, and raises UserError (`training.run.check`).

  Raises:
    UserError: the sweep file, the recipe or an override is invalid.
  """
  from vit_jax.training import config as run_config
  from vit_jax.transfer import pretrained
  sweep = spec.load(sweep_spec)
  recipe = recipe_lib.load_recipe(sweep.recipe)
  commands = [_arguments(sweep.recipe, recipe, overrides) for overrides in sweep.runs]
  parsed = [(arguments, parse(arguments)) for arguments in commands]
  for arguments, config in parsed:
    _in_run(arguments, check or run_config.check, config)
  configs, notes = {}, []
  for arguments, config in parsed:
    config = _in_run(arguments, pretrained.resolve, config)
    configs.setdefault(run_config.run_hash(config), (arguments, config))
  if (same := len(commands) - len(configs)) > 0:
    notes.append(f'{len(commands)} runs are given, of which {same} are duplicates: {len(configs)} runs')
  names = _names([config for _, config in configs.values()], list(dict.fromkeys(k for r in sweep.runs for k in r)),
                 re.split(r'[./]', sweep.recipe.partition('.py')[0])[-1])
  return configs, names, notes


def command(arguments: Sequence[str]) -> str:
  """The command of a run, quoted for a shell."""
  return shlex.join(['python', '-m', 'vit_jax.main', *arguments])


def _arguments(recipe_spec, recipe, overrides):
  """The arguments ('--config=...', '--config.KEY=VALUE', ...) of one run.

  If a run sets its length, the recipe's own length is set to 0, as a config has exactly one length.
  """
  decided = recipe_lib.decided(copy.deepcopy(recipe), [f'--config.{key}={value}' for key, value in overrides.items()])
  for key in overrides:
    recipe_lib.check_key(decided, key)
  lengths = [f'train.{name}' for name in _LENGTHS]
  if any(overrides.get(key) for key in lengths):
    off = {key: 0 for key in lengths if recipe.train[key.partition('.')[2]] and key not in overrides}
    overrides = off | overrides
  return (f'--config={recipe_spec}', *(f'--config.{key}={_text(value)}' for key, value in overrides.items()))


def _text(value):
  """The text of a value as a flag takes it."""
  if value is None or isinstance(value, (str, bool)):
    return str(value)
  if isinstance(value, (tuple, list)):
    return repr(tuple(value))
  return str(int(value)) if isinstance(value, numbers.Integral) else repr(float(value))


def parse(arguments: Sequence[str]) -> Any:
  """The RunConfig of a command, parsed as vit_jax.main parses it, so that the plan's identity is that of the run.

  Raises:
    UserError: an argument is invalid; the message holds the command.
  """
  from vit_jax.training import config as run_config
  values = flags.FlagValues()
  recipe_lib.define_flag('', values, ['main', *arguments])
  try:
    given, switched_off = recipe_lib.without_nones(['main', *arguments])
    values(given)
    recipe_lib.set_none(values.config, switched_off)
    return run_config.cast(values.config)
  except (flags.Error, AttributeError, KeyError, OverflowError, TypeError, ValueError, UserError) as error:
    raise UserError(f'{str(error).removeprefix("flag ")}, in the run\n  {command(arguments)}') from error


def _in_run(arguments, function, *inputs):
  """What the function gives; a UserError names the run."""
  try:
    return function(*inputs)
  except UserError as error:
    raise UserError(f'{error}, in the run\n  {command(arguments)}') from error


def _prepare(configs, names):
  """A PlannedRun for each config. Each data set is opened once for all runs that use it."""
  from vit_jax.data import config as data_config
  from vit_jax.data import pipeline
  from vit_jax.training import run as run_lib
  opened = functools.lru_cache(maxsize=1)(pipeline.open_data)  # one at a time, as pictures may take gigabytes

  def open_data(config):
    data = opened(data_config.unbatched(config))
    data_config.check_pictures(config, data.image_shape[:2], data.image_shape[2])
    return data

  by_data = sorted(configs, key=lambda identity: repr(data_config.unbatched(configs[identity][1].data)))
  planned = {}
  for identity in by_data:
    arguments, config = configs[identity]
    run = _in_run(arguments, run_lib.prepare, config, open_data)
    planned[identity] = _planned(names[list(configs).index(identity)], identity, arguments, config, run.params,
                                 run.steps, run.flops_per_example_train)
  return [planned[identity] for identity in configs]


def _share_trunks(runs, configs):
  """(runs with their trunks filled in, trunks). The trunk of a single run may continue that of an earlier sweep."""
  from vit_jax.training import branch
  shared, groups = [], collections.defaultdict(list)
  for run in runs:
    config = configs[run.config_hash][1]
    try:
      step, trunk = branch.branch_step(config.schedule, run.steps), branch.trunk_hash(config)
    except UserError:  # the schedule depends on the length from the first step, or the run may stop early
      step = 0
    if step > 0:
      run = dataclasses.replace(run, trunk=trunk, branch_step=step)
      groups[trunk].append(run)
    shared.append(run)
  return shared, [_trunk(trunk, members, configs) for trunk, members in groups.items()]


def _trunk(trunk_hash, members, configs):
  from vit_jax.training import branch
  longest = max(members, key=lambda run: run.steps)
  steps = tuple(sorted({run.branch_step for run in members}))
  config = branch.trunk_config(configs[longest.config_hash][1], steps[-1])
  return PlannedTrunk(trunk_hash, longest.arguments, steps, longest.examples // longest.steps,
                      longest.flops_per_example, _program(config))


def _names(configs, keys, recipe_name):
  """A short name for each config, made of the values of the keys that distinguish the runs.

  A key is left out if the keys before it already distinguish the same runs, such as a learning rate that is set for
  each width. A value is left out if it is switched off.
  """
  keys = sorted(keys, key='seed'.__eq__)  # the seed comes last
  rows = [[_at(config, key) for key in keys] for config in configs]
  chosen, parts = [], 1
  for i in range(len(keys)):
    split = len({tuple(str(row[j]) for j in (*chosen, i)) for row in rows})
    if split > parts:
      chosen, parts = [*chosen, i], split
  last = [key.rpartition('.')[2] for key in keys]
  short = [keys[i] if last.count(last[i]) > 1 else last[i] for i in range(len(keys))]
  part = lambda key, value: value if isinstance(value, str) else f'{key}{_short(value)}'
  words = lambda row: [part(short[i], row[i]) for i in chosen if row[i] or keys[i] == 'seed']
  name = lambda row: '_'.join(words(row)) or recipe_name
  return [re.sub(r'[^A-Za-z0-9._-]+', '-', name(row))[:_LONGEST_NAME] for row in rows]


def _at(config: Any, key: str) -> Any:
  """The value of a key; None where a run of another family or objective does not have it."""
  for part in key.split('.'):
    config = getattr(config, part, None)
  return config


def _short(value):
  return f'{value:.4g}'.replace('e+0', 'e').replace('e+', 'e') if isinstance(value, float) else str(value)
