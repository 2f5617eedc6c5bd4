"""A damaged run stops its own use alone: the sweep, its status and the law go on with the others and name it."""

import io
import json

import pytest

from vit_jax import records
from vit_jax.console import Console
from vit_jax.errors import UserError
from vit_jax.scaling import points
from vit_jax.sweeps import display, folders, jobs, runner
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun, PlannedTrunk

TRUNK = PlannedTrunk('f00', ('--config=a.py',), (70, 140), batch_size=10, flops_per_example=1000)
RUNS = (PlannedRun('steps100', 'a1', ('--config=a.py',), 5, 100, 1000, 1000, 'f00', 70),
        PlannedRun('steps200', 'a2', ('--config=a.py',), 5, 200, 2000, 1000, 'f00', 140),
        PlannedRun('cosine', 'a3', ('--config=a.py',), 5, 300, 3000, 1000))
PLAN = Plan(RUNS, (TRUNK,), (), 'cpu', 1e9)
BAD_LINES = [b'\377', b'{}', b'[]', b'not JSON', b'{"step": "x", "split": 3, "event": []}', b'{"event": "train"}']


def _finish(folder, loss=2.0):
  folder.mkdir(parents=True, exist_ok=True)
  records.write_run(folder, {'status': 'finished', 'config_hash': folder.name, 'params': 5, 'results': {'steps': 1},
                             'flops_per_example_train': 1000})
  row = {'split': 'val', 'step': 1, 'examples': 10, 'loss': loss}
  (folder / records.METRICS).write_text(json.dumps(row) + '\n')
  (folder / records.EVENTS).write_text('{"event": "train", "images_per_s": 10.0, "step": 1, "time": 1.0}\n')


@pytest.fixture(name='sweep')
def _sweep(tmp_path):
  for run, loss in zip(RUNS, (2.0, 1.8, 1.5)):
    _finish(tmp_path / f'{run.name}-{run.config_hash}', loss)
  return tmp_path


def _shown(sweep):
  """What --dry_run and --status print."""
  out, made = io.StringIO(), jobs.make(PLAN, sweep)
  shown = display.Display(Console(file=out, width=300))
  seconds = jobs.seconds(made, PLAN, sweep, 1)
  left = jobs.to_do(made)
  shown.plan(PLAN, made, seconds)
  damaged = any(folders.damage(job.folder) for job in made)
  together = jobs.packed(jobs.by_priority(left, seconds), PLAN, 1)
  shown.totals(PLAN, made, together, jobs.makespan(left, seconds, 1), 1, damaged)
  shown.status(made)
  return out.getvalue(), [job.name for job in left]


@pytest.mark.parametrize('line', BAD_LINES)
@pytest.mark.parametrize('name', [records.EVENTS, records.METRICS])
def test_a_bad_line_is_named_and_the_sweep_stays_finished(sweep, name, line):
  path = sweep / 'cosine-a3' / name
  path.write_bytes(path.read_bytes() + line + b'\n')
  text, left = _shown(sweep)
  assert left == [] and '3 finished' in text and 'all runs are finished' in text
  if (name, line) != (records.EVENTS, BAD_LINES[-1]):
    assert f'note: cosine-a3: {path}, line 2: ' in text


@pytest.mark.parametrize('content', [b'', b'{}', *BAD_LINES[:4], b'{"status": "finished", "results": {"steps": "1"}}',
                                     b'{"status": "finished", "results": []}'])
def test_a_damaged_run_json_leaves_that_run_out(sweep, content):
  (sweep / 'steps100-a1' / records.RUN).write_bytes(content)
  text, left = _shown(sweep)
  assert left == [] and '2 finished, ' in text and '1 damaged' in text and 'all others are finished' in text
  assert 'left out    steps100-a1: ' in text and f'`rm {sweep}/steps100-a1/run.json`' in text


@pytest.mark.parametrize('line', BAD_LINES[:5])
def test_the_law_leaves_out_the_damaged_run(sweep, line):
  path = sweep / 'cosine-a3' / records.METRICS
  path.write_bytes(line + b'\n' + path.read_bytes())
  (sweep / 'steps200-a2' / records.RUN).write_bytes(b'')
  loaded = points.load([sweep])
  assert loaded.runs == ['steps100-a1'] and len(loaded.dropped) == 2
  said = '\n'.join(loaded.describe_dropped())
  assert 'metrics.jsonl, line 1' in said and 'run.json: empty' in said and '`rm ' in said and 'steps200-a2' in said
  assert 'another folder' in said


def test_a_law_of_damaged_runs_alone_is_refused_with_their_names(sweep):
  for run in sweep.iterdir():
    (run / records.RUN).write_bytes(b'')
  with pytest.raises(UserError, match='no points left: cosine-a3: damaged: '):
    points.load([sweep])


@pytest.mark.parametrize('content', [b'', b'{}', b'\377', b'[]',
                                     b'{"runs": 3, "trunks": []}', b'{"runs": [{}], "trunks": []}',
                                     b'{"runs": [], "trunks": [], "platform": "cpu", "matmul_speed": 1.0}'])
def test_a_damaged_plan_is_left_out(tmp_path, content):
  folders.write_plan(tmp_path, 'good', PLAN)
  (tmp_path / 'plans' / 'bad.json').write_bytes(content)
  plans, (fault,) = folders.read_plans(tmp_path)
  assert plans == [PLAN] and 'plans/bad.json' in fault and 'writes it again' in fault
  (tmp_path / 'plans' / 'good.json').unlink()
  with pytest.raises(UserError, match='bad.json.*The command that started the sweep writes it again'):
    folders.read_plans(tmp_path)


def test_branches_do_not_wait_for_a_damaged_trunk(tmp_path):
  trunk = tmp_path / 'trunks' / 'f00'
  trunk.mkdir(parents=True)
  (trunk / records.RUN).write_bytes(b'')
  made = jobs.make(PLAN, tmp_path)
  assert jobs.to_do(made) == made[1:] and all(job.ready() for job in made[1:])


@pytest.mark.parametrize('damaged', [True, False])
def test_branches_run_without_a_trunk_whose_checkpoints_are_damaged(tmp_path, monkeypatch, damaged):
  monkeypatch.setattr(runner, '_POLL_SECONDS', 0.01)
  out, made = io.StringIO(), [job for job in jobs.make(PLAN, tmp_path) if job.name != 'cosine-a3']
  event = '{"event": "failed", "damaged": true}' if damaged else '{"event": "failed"}'
  fail = f"import sys; open('events.jsonl', 'a').write('{event}\\n'); sys.exit(1)"
  good = "import pathlib; pathlib.Path('run.json').write_text('{\"status\": \"finished\"}')"
  command = lambda group, share: ['python3', '-c', f'import os; os.chdir({group[0].folder!r})\n'
                                  + (fail if group[0].saves else good)]
  shown = display.Display(Console(file=out, width=200))
  assert runner.Runner([(job,) for job in made], 2, shown, command).run() == 1
  assert ('its trunk failed' in out.getvalue()) == (not damaged)
  assert [job.finished() for job in made] == [False, damaged, damaged]
