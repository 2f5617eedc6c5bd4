"""How far runs are, from their files alone: of a launched sweep too, whose plan this machine may not have."""

import json
import time

import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.survival import restarts, stop_file
from vit_jax.sweeps import standing

SECONDS = {'step': 3000.0, 'start': 300.0, 'compile': 300.0, 'data': 0.0, 'evaluate': 0.0, 'save': 0.0}


@pytest.fixture(name='sweep')
def _sweep(tmp_path):
  """A run that was killed hard twice, and a trunk; on TPUs."""
  run = {'config_hash': 'aaaa', 'status': 'running', 'steps': 1000,
         'devices': {'kind': 'TPU v5 lite', 'platform': 'tpu', 'count': 16}}
  for name in ('b16-aaaa', 'trunks/tttt'):
    (tmp_path / name).mkdir(parents=True)
    records.write_run(tmp_path / name, run | ({'status': 'trunk', 'branch_steps': [700]} if 'tttt' in name else {}))
  folder, now = tmp_path / 'b16-aaaa', time.time()
  events = [{'event': restarts.BEGUN, 'step': 0},
            {'event': 'start', 'step': 0, 'seconds_so_far': SECONDS | {'step': 0.0}},
            {'event': 'save', 'step': 500, 'seconds_so_far': SECONDS}, {'event': restarts.BEGUN, 'step': 500},
            {'event': restarts.BEGUN, 'step': 500}]
  rows = [{'split': 'train', 'step': 500, 'loss': 2.5}, {'split': 'val', 'step': 500, 'loss': 2.25}]
  (folder / records.EVENTS).write_text(''.join(json.dumps({'time': now, **event}) + '\n' for event in events))
  (folder / records.METRICS).write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(tmp_path)


def test_runs_are_found_without_a_plan(sweep):
  found = standing.read(sweep)
  assert [job.name for job in found.jobs] == ['trunk tttt', 'b16-aaaa'] and not found.faults
  trunk, run = standing.of_all(found.jobs)
  assert (run.step, run.loss, run.val_loss, run.restarts) == (500, 2.5, 2.25, 2) and run.silent_s < 60
  assert run.goodput == pytest.approx(3000 / 3600) and run.chip_hours == pytest.approx(16) and run.generation == 'v5e'
  assert run.cost() == pytest.approx(16 * 1.2) and run.cost(0.5) == pytest.approx(8)
  assert trunk.status == 'waiting' and trunk.goodput is None and trunk.chip_hours == 0


def test_a_folder_without_runs(tmp_path):
  with pytest.raises(UserError, match='no sweep has been started in this folder'):
    standing.read(str(tmp_path / 'nothing'))


@pytest.mark.parametrize('name', ['b16-aaaa', 'b16'])
def test_a_run_is_asked_to_stop_and_that_is_taken_back(sweep, name):
  found, folder = standing.read(sweep), f'{sweep}/b16-aaaa'
  assert 'b16-aaaa is asked to stop' in standing.ask(found, name, stop=True)
  with pytest.raises(UserError, match='asks this run to stop. .*--unstop=b16-aaaa --workdir='):
    stop_file.refuse(folder)
  assert 'may run again' in standing.ask(found, name, stop=False)
  stop_file.refuse(folder)
  assert 'was not asked' in standing.ask(found, name, stop=False)


def test_a_run_that_is_not_there_is_not_asked(sweep):
  with pytest.raises(UserError, match="b17: expected a run as --status names it; known: b16-aaaa, trunk tttt"):
    standing.ask(standing.read(sweep), 'b17', stop=True)
