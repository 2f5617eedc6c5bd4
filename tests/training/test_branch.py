"""A branch is the run of its length: it has the same hash and ends bit for bit the same."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from vit_jax import checkpoint, config, records
from vit_jax.errors import UserError
from vit_jax.optimisation.schedule import ScheduleConfig, multiplier
from vit_jax.scaling import points
from vit_jax.training import branch, loop
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

STEPS = (20, 40)  # lengths; cooldowns of 30% begin after 14 and 28 steps


def _config(steps, **changes):
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool, c.model.dropout = 4, 'gap', 0.1
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 2
  c.data.batch_size, c.data.augment.mixup = 32, 0.2
  c.schedule.name, c.schedule.warmup_steps, c.optimizer.ema_decay = 'wsd', 5, 0.9
  c.train.steps = steps
  c.evaluate.every, c.system.log_every = 20, 1
  c.update_from_flattened_dict(changes)
  return run_config.cast(c)


def _train(config, workdir, **options):
  return loop.train(run_lib.prepare(config), workdir, Display(Console(file=io.StringIO())), **options)


def _trunk(config, workdir, *steps):
  display = Display(Console(file=io.StringIO()))
  return loop.train(run_lib.prepare_trunk(config, steps), workdir, display)


def _end(workdir):
  """The arrays of the newest checkpoint, and the final scores."""
  from orbax import checkpoint as ocp
  step = checkpoint.Checkpoints(workdir, read_only=True).latest()
  tree = ocp.StandardCheckpointer().restore(workdir / records.CHECKPOINTS / str(step) / 'state')
  rows = [row for row in records.read_rows(workdir / 'metrics.jsonl') if row['step'] == step]
  return {jax.tree_util.keystr(p): np.asarray(a).tobytes() for p, a in jax.tree_util.tree_leaves_with_path(tree)}, rows


@pytest.fixture(name='folders', scope='module')
def _folders(tmp_path_factory):
  """A folder with a trunk, its branches, and the same runs trained alone."""
  folder = tmp_path_factory.mktemp('branches')
  _trunk(_config(max(STEPS)), folder / 'trunk', 14)
  _trunk(_config(max(STEPS)), folder / 'trunk', 28)  # extended for a longer branch
  for steps in STEPS:
    _train(_config(steps), folder / f'branch{steps}', trunk=folder / 'trunk')
    _train(_config(steps), folder / f'alone{steps}')
  return folder


@pytest.mark.parametrize('steps', STEPS)
def test_a_branch_ends_bit_for_bit_where_the_run_alone_ends(folders, steps):
  ours, rows = _end(folders / f'branch{steps}')
  theirs, expected = _end(folders / f'alone{steps}')
  assert ours == theirs and len(ours) > 40
  scores = [row for row in expected if row['split'] != 'train']
  assert scores and [row for row in rows if row['split'] != 'train'] == scores
  run, alone = (records.read_run(folders / f'{kind}{steps}') for kind in ('branch', 'alone'))
  assert run['config_hash'] == alone['config_hash'] and run['results'] == alone['results']
  assert run['lineage'] == {'trunk': branch.trunk_hash(_config(steps)), 'step': int(0.7 * steps)}
  assert alone['lineage'] is None
  trained = [row['step'] for row in records.read_rows(folders / f'branch{steps}' / 'metrics.jsonl')
             if row['split'] == 'train']
  assert trained[0] == int(0.7 * steps) + 1  # only the cooldown


def test_the_trunk_keeps_the_branch_steps_and_is_not_a_run(folders):
  run = records.read_run(folders / 'trunk')
  assert run['status'] == 'trunk' and run['branch_steps'] == [14, 28] and run['results'] == {'steps': 28}
  assert run['config_hash'] == branch.trunk_hash(_config(7))
  assert {14, 28} <= set(checkpoint.Checkpoints(folders / 'trunk', read_only=True).steps())
  train = [row['step'] for row in records.read_rows(folders / 'trunk' / 'metrics.jsonl') if row['split'] == 'train']
  assert train == list(range(1, 29))  # extending it repeated and lost no step


def test_a_branch_and_the_run_trained_alone_are_one_draw(folders):
  """Whether or not the trunk was used as a cache, runs of one trunk are one cluster of a law's bootstrap."""
  assert set(points.load([folders / 'alone20', folders / 'branch40']).clusters) == {0}
  trunk = branch.trunk_hash(_config(7))
  assert all(records.read_run(folders / name)['trunk_hash'] == trunk for name in ('alone20', 'branch40', 'trunk'))


@pytest.mark.slow
def test_a_branch_from_an_earlier_checkpoint_trains_the_remaining_steps(folders, tmp_path):
  _train(_config(30), tmp_path / 'branch', trunk=folders / 'trunk')  # cooldown from 21; checkpoint at 14
  _train(_config(30), tmp_path / 'alone')
  assert _end(tmp_path / 'branch')[0] == _end(tmp_path / 'alone')[0]
  assert records.read_run(tmp_path / 'branch')['lineage']['step'] == 14


@pytest.mark.slow
def test_a_resumed_branch_keeps_its_lineage(folders, tmp_path):
  _train(_config(40), tmp_path / 'run', trunk=folders / 'trunk')
  lineage = records.read_run(tmp_path / 'run')['lineage']
  _train(_config(40), tmp_path / 'run')
  assert lineage and records.read_run(tmp_path / 'run')['lineage'] == lineage


def test_trunks_of_other_runs_are_refused_with_the_differing_key(folders, tmp_path):
  with pytest.raises(UserError, match=r'optimizer.learning_rate: 0.5, there 0.001$'):
    _train(_config(40, **{'optimizer.learning_rate': 0.5}), tmp_path / 'run', trunk=folders / 'trunk')
  with pytest.raises(UserError, match='no trunk there.*--branch_steps=28'):
    _train(_config(40), tmp_path / 'run', trunk=tmp_path / 'nothing')
  with pytest.raises(UserError, match='no trunk there'):
    _train(_config(40), tmp_path / 'run', trunk=folders / 'alone40')
  with pytest.raises(UserError, match='only wsd and rsqrt'):
    branch.trunk_hash(_config(40, **{'schedule.name': 'cosine'}))
  with pytest.raises(UserError, match='patience'):
    branch.trunk_hash(_config(40, **{'evaluate.patience': 2}))


@pytest.mark.parametrize('name', ['wsd', 'rsqrt'])
@pytest.mark.parametrize('steps', [10, 33, 1000])
def test_the_cooldown_begins_at_the_branch_step(name, steps):
  config = ScheduleConfig(name=name, warmup_steps=3)
  last, trunk = branch.branch_step(config, steps), ScheduleConfig(name=name, warmup_steps=3, cooldown_fraction=0.0)
  same = [float(multiplier(config, steps, t)) == float(multiplier(trunk, last, t)) for t in (last - 1, last, last + 1)]
  assert same == [True, True, False]  # the first step of the cooldown still has the full rate
