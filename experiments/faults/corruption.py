"""Silent corruption and poisoned batches: what is found, what is not, and what the search costs.

  python experiments/faults/corruption.py --out=runs/corruption --only=flips,alarms
  python experiments/faults/corruption.py --out=runs/corruption --only=rewind,cost

The first is on eight fake CPU devices, the second on one. Prints a line for each result, and writes them to
OUT/corruption.log.
"""

import io
import logging
import os
import pathlib
import sys
import tempfile
import time

_ON_ONE = ('--only=rewind', '--only=cost')
ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '1' if any(word.startswith(_ON_ONE) for word in sys.argv) else '8')

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from rich.console import Console  # noqa: E402

from tests.bit_flips import at_random, flipped  # noqa: E402
from tests.command_line import final_arrays  # noqa: E402
from vit_jax import config, records  # noqa: E402
from vit_jax.data import order  # noqa: E402
from vit_jax.errors import UserError  # noqa: E402
from vit_jax.training import config as run_config  # noqa: E402
from vit_jax.training import loop, replay, state  # noqa: E402
from vit_jax.training import run as run_lib  # noqa: E402
from vit_jax.training.display import Display  # noqa: E402
from vit_jax.training.program import Program  # noqa: E402

_ONLY = flags.DEFINE_list('only', ['flips', 'alarms'], 'Which parts: of these, or of rewind and cost.')
_OUT = flags.DEFINE_string('out', 'runs/corruption', 'A folder for the log.')
_FLIPS = flags.DEFINE_integer('flips', 100, 'Bits that are flipped, one at a time.')
_STEPS = flags.DEFINE_integer('steps', 2000, 'Steps of each of the five runs in which nothing is wrong.')
_PAIRS = flags.DEFINE_integer('pairs', 200, 'Pairs of timings.')
_POISONED = flags.DEFINE_integer('poisoned', 5, 'Runs with a poisoned batch.')

VIT = dict(patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=4)
ONE_DEVICE = {'system.mesh.data': 1, 'system.mesh.fsdp': 1, 'system.mesh.tensor': 1}
MODELS = {  # family, model, mesh (data, fsdp, tensor), other options
    'vit': ('vit', VIT | dict(pool='gap', dropout=0.1), (2, 2, 2), {'optimizer.ema_decay': 0.9}),
    'vit in bfloat16': ('vit', VIT | dict(pool='gap', dtype='bfloat16', drop_path=0.1), (8, 1, 1),
                        {'data.augment.mixup': 0.2}),
    'swin': ('swin', dict(width=16, depths=(2, 2), num_heads=(2, 4), window_size=2, patch_size=2), (1, 8, 1),
             {'system.microbatches': 2}),
    'resnet': ('resnet', dict(block='basic', depths=(1, 1), widths=(8, 16), stem='full', stem_width=8), (4, 2, 1),
               {'optimizer.name': 'sgd'}),
    'convnext': ('convnext', dict(depths=(1, 1), widths=(8, 16), patch_size=2, kernel_size=3), (8, 1, 1),
                 {'optimizer.name': 'lion'})}


def prepare(name: str, **changes):
  """A run of one of the models, on the digits."""
  family, model, mesh, options = MODELS[name]
  c = config.defaults(family)
  c.model.update(model)
  c.data.batch_size, c.optimizer.learning_rate, c.system.save_every = 32, 3e-3, 100
  c.system.mesh.data, c.system.mesh.fsdp, c.system.mesh.tensor = mesh
  c.update_from_flattened_dict(options | changes)
  return run_lib.prepare(run_config.cast(c))


def train(run, workdir: pathlib.Path):
  """The arrays and the log of a run at its end."""
  loop.train(run, workdir, Display(Console(file=io.StringIO())))
  return final_arrays(workdir), (workdir / records.METRICS).read_bytes()


def flips(say):
  """Flips bits of one device's gradients; each is to be found before the update, on the right device."""
  for name in ('vit in bfloat16', 'vit'):
    flips_of(prepare(name, **{'train.steps': 2 * _FLIPS.value, 'system.replay_every': 1}), say)


def flips_of(run, say):
  """Flips a bit in each step with an odd number. In the others the same program must find nothing."""
  names, train_state = replay.Inspect(run.model).names(), state.create(run.model, run.config, run.mesh)
  fault, good = at_random(len(names), run.mesh.size), Program(run, train_state)
  nowhere = lambda step: [jnp.where(step % 2 == 0, place, -1) for place in fault(step)]  # no array, no device
  bad, found, named, false = Program(run, train_state, flipped(run.model, nowhere)), 0, 0, 0
  for step, batch in enumerate(run.train_batches(0, lambda errors: None), 1):
    said = what_is_said(bad, train_state, step, batch)
    if step % 2:
      leaf, device, *_ = map(int, fault(jnp.int32(step - 1)))
      found += bool(said)
      named += names[leaf] in said and f'(on {run.mesh.devices.flat[device]}, ' in said
    else:
      false += bool(said)
    train_state, _ = good(train_state, step, (batch,))  # also shows that the state is still that before the step
  sizes = ' x '.join(map(str, run.mesh.shape.values()))
  say(f'flips: {found} of {_FLIPS.value} mantissa bits of one device found before the update, on a mesh of {sizes}; '
      f'{named} times with the right array and device; {false} of {_FLIPS.value} steps without a flip refused')


def what_is_said(program, train_state, step, batch):
  """The message with which a step is refused, '' if it is not."""
  try:
    program(train_state, step, (batch,))
  except UserError as error:
    return str(error)
  return ''


def alarms(say):
  """Runs in which nothing is wrong: no step and no save may be refused, and the end is that of a run without replay."""
  total = 0
  for name in MODELS:
    ends = []
    for every in (1, 0):
      with tempfile.TemporaryDirectory() as folder:
        steps = {'train.steps': _STEPS.value, 'system.replay_every': every}
        ends.append(train(prepare(name, **steps), pathlib.Path(folder)))
    total += _STEPS.value
    say(f'alarms: none in {_STEPS.value} steps of {name}, {_STEPS.value // 100} saves; its end '
        f'{"equals" if ends[0] == ends[1] else "DIFFERS FROM"} that of the run without replay')
  say(f'alarms: none in {total} steps, each run twice')


def cost(say):
  """The time that a step which is run twice takes beyond one that is run once.

  All other steps are the same, so that one step in k that is run twice costs this time in k steps. Stretches of a few
  steps are timed in turn, with and without, so that other work on the machine disturbs both alike.
  """
  stretch = Stretch()
  stretch.seconds(True)
  pairs = []
  for i in range(_PAIRS.value):
    pair = {twice: stretch.seconds(twice) for twice in ((True, False), (False, True))[i % 2]}
    pairs.append((pair[True] - pair[False]) / pair[False] * Stretch.steps)
  for what, more in zip(('by the clock', 'time of the processors'), np.transpose(pairs), strict=True):
    middle = np.median(more)
    each = ', '.join(f'{middle / k:.1%} for one step in {k} (allowed {1 / k + 0.01:.1%})' for k in (10, 50, 100))
    say(f'cost, {what}: a step that is run twice takes {1 + middle:.2f} times that of a step (median of {len(pairs)} '
        f'pairs; quartiles {1 + np.percentile(more, 25):.2f} and {1 + np.percentile(more, 75):.2f}): {each}')


class Stretch:
  """A stretch of steps on one device, the last of which is run twice or not."""
  steps = 5

  def __init__(self):
    sizes = {'model.patch_size': 2, 'model.width': 96, 'model.mlp_dim': 384, 'model.depth': 4, 'data.batch_size': 128,
             'train.steps': 10**6, 'schedule.warmup_steps': 10}
    run = prepare('vit', **sizes, **ONE_DEVICE, **{'system.replay_every': self.steps, 'system.steps_per_call': 1})
    self._state = state.create(run.model, run.config, run.mesh)
    self._program, self._batches = Program(run, self._state), run.train_batches(0, lambda errors: None)

  def seconds(self, twice: bool) -> np.ndarray:
    """The time that the next steps take: by the clock, and of all processors."""
    start = np.array([time.perf_counter(), time.process_time()])
    for step in range(1, self.steps + 1):
      number = step if twice or step < self.steps else step + 1  # a number that is not a multiple is run once
      self._state, metrics = self._program(self._state, number, (next(self._batches),))
    jax.block_until_ready((self._state, metrics))  # only here: steps are queued, as in training
    return np.array([time.perf_counter(), time.process_time()]) - start


class Poisoned:
  """Batches of training of which one has inverted pictures and wrong labels."""

  def __init__(self, batches, numbers, bad):
    self._batches, self._numbers, self._bad = batches, iter(numbers), bad
    self.take_errors, self.close = batches.take_errors, batches.close

  def __iter__(self):
    return self

  def __next__(self):
    batch = next(self._batches)
    if next(self._numbers) == self._bad:
      batch['image'], batch['label'] = 255 - batch['image'], (batch['label'] + 5) % 10
    return batch


def rewind(say):
  """A poisoned batch: the end is to be that of a run that never had it, byte for byte."""
  for seed in range(_POISONED.value):
    bad, ends = 300 + 37 * seed, []
    for options in ({}, {'train.leave_out': (bad,)}):
      changes = {'train.steps': 600, 'train.on_spike': 'rewind', 'seed': seed, 'data.batch_size': 128,
                 'system.steps_per_call': 1}  # else pictures are read on the device, where none is poisoned
      run = prepare('vit', **changes, **ONE_DEVICE, **options)
      if not options:
        poison(run.data, bad)
      with tempfile.TemporaryDirectory() as folder:
        ends.append(train(run, pathlib.Path(folder)))
        went = [row for row in records.read_rows(pathlib.Path(folder) / records.EVENTS) if row['event'] == 'rewind']
      if not options:
        said = '; '.join(f'batch {row["batch"]} left out: {row["what"]} {row["value"]:.2f}, usually '
                         f'{row["usual"]:.2f}, back to step {row["to"]}' for row in went)
    say(f'rewind: seed {seed}, batch {bad} poisoned ({said or "NOT FOUND"}): the end '
        f'{"equals" if ends[0] == ends[1] else "DIFFERS FROM"} that of the run without it')


def poison(data, bad: int) -> None:
  """Poisons one batch of the order of training."""
  whole = data.train_batches

  def read(seed, first, count, rows=None, workers=0, left_out=()):
    numbers = (order.batch_of(step, left_out) + 1 for step in range(first, first + count))
    return Poisoned(whole(seed, first, count, rows, workers, left_out), numbers, bad)

  data.train_batches = read


def main(_):
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  logging.disable(logging.INFO)  # Orbax's, of every read
  with open(out / 'corruption.log', 'a') as log:
    def say(text):
      print(text, flush=True)
      print(text, file=log, flush=True)
    for name in _ONLY.value:
      globals()[name](say)


if __name__ == '__main__':
  app.run(main)
