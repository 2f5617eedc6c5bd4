import math
import re

import pytest

from vit_jax import config as config_lib
from vit_jax import schema
from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.rehearsal import total
from vit_jax.sweeps import sweep_plan
from vit_jax.training import config as run_config

WIDTHS = "[{'model.width': w, 'model.mlp_dim': 2 * w, 'optimizer.learning_rate': 0.2 / w} for w in (8, 16, 32)]"


def test_a_command_gives_the_run_that_was_planned(write_sweep, tmp_path):
  """Values of every type are parsed from the printed command as they were given."""
  values = {'data.image_size': (12, 12), 'data.augment.flip': True, 'model.pool': 'cls', 'model.width': 32,
            'optimizer.learning_rate': 1 / 3, 'model.layer_scale': 1e-05, 'train.steps': 70, 'seed': 3}
  planned, = sweep_plan.make(write_sweep([values])).runs
  config = config_lib.load_recipe(f'{tmp_path}/tiny.py')
  config.train.epochs = 0  # replaces the recipe's own length
  config.update_from_flattened_dict(values)
  assert planned.config_hash == schema.config_hash(run_config.cast(config))
  assert planned.steps == 70 and planned.examples == 70 * 32
  command = sweep_plan.command(planned.arguments)
  assert command.startswith(f'python -m vit_jax.main --config={tmp_path}/tiny.py --config.')
  assert "'--config.data.image_size=(12, 12)'" in command  # quoted for a shell


def test_isoflop_solves_for_the_steps(write_sweep):
  made = sweep_plan.make(write_sweep(f'isoflop([1e9, 4e9], {WIDTHS})'))
  assert len({run.params for run in made.runs}) == 3
  for run, budget in zip(made.runs, [1e9] * 3 + [4e9] * 3, strict=True):
    assert run.steps == math.ceil(budget / (32 * run.flops_per_example))
    assert 0 <= run.flops - budget < 32 * run.flops_per_example
  assert not made.trunks and made.flops == made.flops_alone


def test_branches_share_a_trunk_for_each_model_and_seed(write_sweep):
  made = sweep_plan.make(write_sweep(f'product({WIDTHS}, branches([100, 200, 400], 0.25), seeds(2))'))
  assert len(made.runs) == 18 and len(made.trunks) == 6
  for trunk in made.trunks:
    assert trunk.branch_steps == (75, 150, 300)
    assert [run.steps for run in made.runs if run.trunk == trunk.trunk_hash] == [100, 200, 400]
  step = sum(32 * run.flops_per_example for run in made.runs if run.steps == 100)  # one step of every model and seed
  assert made.flops_alone == 700 * step
  assert made.flops == (300 + 25 + 50 + 100) * step


def test_budgets_of_a_wsd_schedule_share_a_trunk(write_sweep):
  made = sweep_plan.make(write_sweep(f"product(isoflop([1e9, 4e9], {WIDTHS}), axis('schedule.name', 'wsd'))"))
  assert len(made.trunks) == 3
  for run in made.runs:
    assert run.branch_step == run.steps - math.ceil(0.3 * run.steps)


def test_runs_that_depend_on_their_length_or_may_stop_early_share_no_trunk(write_sweep):
  runs = "chain(axis('train.steps', 50, 100), product(branches([50, 100]), axis('evaluate.patience', 2)), " \
         "product(branches([50]), seeds(2)))"
  made = sweep_plan.make(write_sweep(runs))
  assert len(made.runs) == 6 and made.flops == made.flops_alone
  assert [run.trunk is None for run in made.runs] == [True] * 4 + [False] * 2  # their trunks may be continued by others


def test_a_plan_for_absent_chips_has_the_same_runs_and_trunks(write_sweep):
  """A plan from shapes alone has the runs and trunks of a plan made with devices and data."""
  spec = write_sweep(f'product({WIDTHS}, branches([50, 1000]))')
  configs, names, notes = sweep_plan.read(spec)
  jobs = total.open_jobs(names, [config for _, config in configs.values()])
  here, there = sweep_plan.make(spec), sweep_plan.elsewhere(configs, names, notes, [job.size for job in jobs], 1e15)
  assert (there.runs, there.trunks, there.notes) == (here.runs, here.trunks, here.notes) and len(there.trunks) == 3


def test_duplicate_runs_are_planned_once(write_sweep):
  made = sweep_plan.make(write_sweep("chain(seeds(3), seeds(2), axis('system.keep_last', 5))"))  # seed 0 is the default
  assert len(made.runs) == 3
  assert '6 runs are given, of which 3 are duplicates: 3 runs' in made.notes


def test_names_say_what_differs_and_are_safe_in_paths(write_sweep):
  made = sweep_plan.make(write_sweep(f'product({WIDTHS}, branches([50, 100]), seeds(2))'))
  assert made.runs[0].name == 'width8_steps50_seed0' and made.runs[-1].name == 'width32_steps100_seed1'
  made = sweep_plan.make(write_sweep("axis('data.image_size', (8, 8), (16, 16))"))
  assert [run.name for run in made.runs] == ['image_size-8-8-', 'image_size-16-16-']
  assert all(re.fullmatch(r'[A-Za-z0-9._-]+', run.name) for run in made.runs)
  assert sweep_plan.make(write_sweep('[{}]')).runs[0].name == 'tiny'


def test_short_runs_are_noted(write_sweep):
  made = sweep_plan.make(write_sweep("axis('train.steps', 50, 1000)"))
  assert any('1 of 2 runs have fewer than 1,000 steps (steps50: 50)' in note for note in made.notes)


def test_each_data_set_is_opened_once(write_sweep, monkeypatch):
  opened, open_data = [], pipeline.open_data
  monkeypatch.setattr(pipeline, 'open_data', lambda config: opened.append(config) or open_data(config))
  sweep_plan.make(write_sweep(f"product({WIDTHS}, axis('data.unique_examples', 500, 1000), "
                        "axis('data.batch_size', 16, 32), seeds(2))"))
  assert sorted(config.unique_examples for config in opened) == [500, 1000]


@pytest.mark.parametrize('runs, message', [
    ("axis('model.widht', 3)", "config.model has no key 'widht'; did you mean 'width'"),
    ("axis('model.width', 32, 'wide')", '--config.model.width=wide: .*, in the run\n  python -m vit_jax.main'),
    ("axis('model.pool', 'gab')", "expected one of 'cls', 'gap', 'map', got 'gab', in the run"),
    ("chain(seeds(2), axis('model.patch_size', 3))", 'patch_size=3 does not divide .*, in the run\n.*patch_size=3'),
    ("axis('schedule.warmup_steps', 10000)", 'schedule.warmup_steps=10000.* in the run'),
])
def test_runs_that_cannot_run_are_refused_before_any_starts(write_sweep, runs, message):
  with pytest.raises(UserError, match=re.compile(message, re.DOTALL)):
    sweep_plan.make(write_sweep(runs))
