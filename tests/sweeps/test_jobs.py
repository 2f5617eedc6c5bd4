import dataclasses
import json

import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.survival import lock
from vit_jax.sweeps import folders, jobs, standing
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun, PlannedTrunk

TRUNK = PlannedTrunk('f00', ('--config=a.py',), (70, 140), batch_size=10, flops_per_example=1000)
RUNS = (PlannedRun('steps100', 'a1', ('--config=a.py', '--config.train.steps=100'), 5, 100, 1000, 1000, 'f00', 70),
        PlannedRun('steps200', 'a2', ('--config=a.py', '--config.train.steps=200'), 5, 200, 2000, 1000, 'f00', 140),
        PlannedRun('cosine', 'a3', ('--config=a.py',), 5, 300, 3000, 1000))
PLAN = Plan(RUNS, (TRUNK,), (), 'cpu', 1e9)


def _finish(folder):
  records.write_run(folder, {'status': 'finished', 'config_hash': 'x', 'results': {'steps': 1}})


def test_the_flops_of_the_jobs_add_up_to_those_of_the_plan(tmp_path):
  made = jobs.make(PLAN, tmp_path)
  assert [job.flops for job in made] == [1.4e6, 0.3e6, 0.6e6, 3e6]
  assert sum(job.flops for job in made) == PLAN.flops and PLAN.flops_alone == 6e6


def test_branches_wait_only_for_their_own_step(tmp_path):
  trunk, first, second, alone = jobs.make(PLAN, tmp_path)
  assert trunk.arguments[-1] == '--branch_steps=70,140' and first.arguments[-1] == f'--trunk={trunk.folder}'
  assert [job.ready() for job in (trunk, first, second, alone)] == [True, False, False, True]
  (tmp_path / 'trunks' / 'f00' / 'checkpoints' / '70').mkdir(parents=True)
  assert not first.ready()  # without its run.json a trunk is not used, and its job writes it again
  records.write_run(tmp_path / 'trunks' / 'f00', {'status': 'trunk'})
  (tmp_path / 'trunks' / 'f00' / 'checkpoints' / '140.orbax-checkpoint-tmp').mkdir()
  assert first.ready() and not second.ready() and not trunk.finished()
  (tmp_path / 'trunks' / 'f00' / 'checkpoints' / '140').mkdir()
  assert second.ready() and trunk.finished()


def test_a_run_is_found_by_its_hash_and_only_what_is_left_is_done(tmp_path):
  _finish(tmp_path / 'named-by-another-sweep-a2')
  made = jobs.make(PLAN, tmp_path)
  assert made[2].folder.endswith('named-by-another-sweep-a2')
  assert [job.name for job in jobs.to_do(made)] == ['trunk f00', 'steps100-a1', 'cosine-a3']
  _finish(tmp_path / 'steps100-a1')
  assert [job.name for job in jobs.to_do(jobs.make(PLAN, tmp_path))] == ['cosine-a3']  # no run needs the trunk


def test_a_longer_run_continues_the_trunk_of_an_earlier_sweep(tmp_path):
  longer = PlannedTrunk('f00', ('--config=a.py',), (280,), batch_size=10, flops_per_example=1000)
  run = PlannedRun('steps400', 'a4', ('--config=a.py',), 5, 400, 4000, 1000, 'f00', 280)
  plan = Plan((run,), (longer,), (), 'cpu', 1e9)
  alone, = jobs.make(plan, tmp_path)
  assert alone.trunk is None and alone.flops == plan.flops == plan.flops_alone == 4e6
  records.write_run(tmp_path / 'trunks' / 'f00', {'status': 'trunk', 'results': {'steps': 140}})
  trunk, branch = jobs.make(plan, tmp_path)
  assert trunk.flops == 1.4e6 and branch.flops == 1.2e6 and not branch.ready() and not trunk.finished()
  assert jobs.makespan([trunk, branch], {trunk.name: 7.0, branch.name: 6.0}, 2) == 13


@pytest.mark.parametrize('processes', [1, 2, 3])
def test_the_estimate_is_between_its_bounds(tmp_path, processes):
  made = jobs.make(PLAN, tmp_path)
  seconds = dict(zip((job.name for job in made), (14.0, 3.0, 6.0, 11.0)))
  estimate, total = jobs.makespan(made, seconds, processes), sum(seconds.values())
  assert max(total / processes, 14 + 6) <= estimate <= total
  assert processes > 1 or estimate == total
  assert processes < 3 or estimate == 14 + 6  # trunk, then its longest branch


def test_the_longest_start_first_and_a_trunk_counts_with_its_branch(tmp_path):
  made = jobs.make(PLAN, tmp_path)
  seconds = dict(zip((job.name for job in made), (14.0, 3.0, 6.0, 15.0)))
  assert [job.name for job in jobs.by_priority(made, seconds)] == ['trunk f00', 'cosine-a3', 'steps200-a2',
                                                                   'steps100-a1']


def test_the_estimate_uses_the_speed_of_finished_runs(tmp_path):
  made = jobs.make(PLAN, tmp_path)
  _finish(tmp_path / 'old-b1')
  records.write_run(tmp_path / 'old-b1', {'status': 'finished', 'flops_per_example_train': 1000})
  events = records.Events(tmp_path / 'old-b1' / records.EVENTS)
  for speed in (20.0, 100.0, 110.0):  # the first interval is slow
    events.append({'event': 'train', 'images_per_s': speed})
  events.close()
  seconds = jobs.seconds(made, PLAN, tmp_path, 1)
  assert seconds['cosine-a3'] == pytest.approx(jobs.START_SECONDS + 3000 / 100)


@pytest.mark.parametrize('platform, flops, sizes', [
    ('cpu', 1e6, [4, 3, 1]), ('cpu', 1e7, [1] * 8), ('tpu', 1e7, [4, 3, 1]), ('tpu', 1e11, [1] * 8)])
def test_small_runs_of_one_program_are_trained_together(tmp_path, platform, flops, sizes):
  job = lambda i, program: jobs.Job(f'job{i}', str(tmp_path / f'job{i}'), (), 100, 0, 100 * flops, int(flops),
                                    program=program)
  made = [job(i, 'same') for i in range(7)] + [job(7, None)]
  plan = dataclasses.replace(PLAN, platform=platform)
  assert [len(pack) for pack in jobs.packed(made, plan, 2)] == sizes
  assert [job for pack in jobs.packed(made, plan, 2) for job in pack] == made
  (tmp_path / 'job1' / 'checkpoints' / '50').mkdir(parents=True)  # it resumes from another step
  assert all(len(pack) == 1 or made[1] not in pack for pack in jobs.packed(made, plan, 2))


def test_the_status_is_read_from_the_files(tmp_path):
  assert standing.of(tmp_path) == standing.Standing('waiting')
  events, metrics = (records.Events(tmp_path / records.EVENTS), records.Lines(tmp_path / records.METRICS))
  events.append({'event': 'start'})
  metrics.append({'split': 'val', 'step': 10, 'loss': 1.5})
  metrics.append({'split': 'train', 'step': 12, 'loss': 1.0})
  found = standing.of(tmp_path)
  assert (found.status, found.step, found.val_loss, found.restarts) == ('stopped', 12, 1.5, 0)
  with lock.take(tmp_path):
    assert lock.take(tmp_path) is None
    assert standing.of(tmp_path).status == 'running'
  events.append({'event': 'failed'})
  assert standing.of(tmp_path).status == 'failed'
  _finish(tmp_path)
  assert standing.of(tmp_path).status == 'finished'


def test_plans_are_kept_and_read_back(tmp_path):
  with pytest.raises(UserError, match='no sweep has been started in this folder'):
    folders.read_plans(tmp_path)
  folders.write_plan(tmp_path, 'mine', PLAN)
  assert folders.read_plans(tmp_path) == ([PLAN], [])
  assert json.loads((tmp_path / 'plans' / 'mine.json').read_text())['runs'][0]['name'] == 'steps100'


def test_one_process_for_large_models_or_on_an_accelerator(tmp_path):
  assert jobs.default_processes(PLAN) == min(len(jobs.cores()), 3)
  assert jobs.default_processes(dataclasses.replace(PLAN, platform='tpu')) == 1
  large = dataclasses.replace(RUNS[0], flops_per_example=10**10)
  assert jobs.default_processes(dataclasses.replace(PLAN, runs=(large, *RUNS[1:]))) == 1
