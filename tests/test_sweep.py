"""The command python -m vit_jax.sweep: real subprocesses on the digits."""

import signal
import subprocess
import time

import command_line
import pytest
from command_line import ON_CPU, ROOT, command, run

from vit_jax import records
from vit_jax.sweeps import standing

RECIPE = command_line.recipe('c.model.depth = 1', 'c.train.epochs = 1')
RUNS = "chain(branches([20, 40]), [{'optimizer.learning_rate': 1e19, 'schedule.name': 'constant'}])"


def _flags(folder, runs, *flags, name='mine'):
  (folder / 'tiny.py').write_text(RECIPE)
  (folder / f'{name}.py').write_text(f'from vit_jax.sweeps import Sweep, axis, branches, chain\n\ndef get_sweep():\n'
                                     f'  return Sweep({str(folder / "tiny.py")!r}, {runs})\n')
  return f'--sweep={folder}/{name}.py', f'--workdir={folder}/runs', *flags


@pytest.fixture(name='swept', scope='module')
def _swept(tmp_path_factory):
  """A sweep of two branches and a run that must fail."""
  folder = tmp_path_factory.mktemp('swept')
  return folder, run('sweep', *_flags(folder, RUNS, '--jobs=2'))


def _folder(folder, name):
  return next((folder / 'runs').glob(f'{name}-*'))


def test_a_failing_run_is_reported_and_the_others_finish(swept):
  folder, done = swept
  assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr, done.stderr
  for said in ('with shared trunks', 'failed    constant', 'the gradient norm is inf at step', '2 of 3 runs finished',
               f'python -m vit_jax.law {folder}/runs'):
    assert said in done.stdout, done.stdout
  page = (folder / 'runs' / 'index.html').read_text()
  assert '2 of 3 runs finished' in page and 'the gradient norm is inf at step' in page and '"live":false' in page
  for steps in (20, 40):
    run = records.read_run(_folder(folder, f'wsd_steps{steps}'))
    assert run['status'] == 'finished' and run['lineage'] == {'trunk': run['lineage']['trunk'], 'step': steps * 7 // 10}
    assert _folder(folder, f'wsd_steps{steps}').name.endswith(run['config_hash'])  # as planned
  assert records.read_run(folder / 'runs' / 'trunks' / run['lineage']['trunk'])['status'] == 'trunk'


def test_status_needs_no_sweep_file(swept):
  folder, _ = swept
  done = run('sweep', f'--workdir={folder}/runs', '--status')
  assert done.returncode == 0 and '3 finished, 1 failed' in done.stdout, done.stdout + done.stderr


def test_an_overlapping_sweep_shares_the_finished_runs(swept):
  """With other names and another order but the same identities, there is nothing to do."""
  folder, _ = swept
  before = {path: path.stat().st_mtime_ns for path in (folder / 'runs').glob('*/*')}
  runs = "chain(*[branches([n]) for n in (40, 20)])"
  done = run('sweep', *_flags(folder, runs, name='other'))
  assert done.returncode == 0 and 'all runs are finished' in done.stdout, done.stdout + done.stderr
  after = {path: path.stat().st_mtime_ns for path in (folder / 'runs').glob('*/*')}
  assert {path: after[path] for path in before if 'plans' not in path.parts} == {
      path: at for path, at in before.items() if 'plans' not in path.parts}


@pytest.mark.slow
def test_ctrl_c_leaves_the_run_resumable_and_no_process(tmp_path):
  flags = _flags(tmp_path, "axis('train.steps', 100000)", '--jobs=1')
  process = subprocess.Popen(command('sweep', *flags), cwd=ROOT, env=ON_CPU, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  try:
    logged = lambda: list((tmp_path / 'runs').glob('*/metrics.jsonl'))
    while not (logged() and logged()[0].stat().st_size) and process.poll() is None:
      time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
  finally:
    process.kill()  # its job ends with it
  assert process.returncode == 130, said
  assert 'the same command' in said and 'Traceback' not in said
  run = _folder(tmp_path, 'tiny')
  assert standing.of(run).status == 'stopped'
  assert 'the same command resumes the run' in (run / 'log.txt').read_text()


@pytest.mark.slow
def test_small_runs_of_one_program_are_trained_together(tmp_path):
  """A run that diverges is dropped from the group, then run and reported alone."""
  rates = "axis('optimizer.learning_rate', 0.01, 0.003, 1e19)"
  done = run('sweep', *_flags(tmp_path, rates, '--jobs=1'))
  assert done.returncode == 1 and '2 of 3 runs finished' in done.stdout, done.stdout + done.stderr
  assert done.stdout.count('started ') == 4 and '3 of them are trained together' in done.stdout, done.stdout
  assert 'failed    learning_rate1e19' in done.stdout and 'the gradient norm is inf at step 2;' in done.stdout
  for rate in (0.01, 0.003):
    folder = _folder(tmp_path, f'learning_rate{rate}')
    assert records.read_run(folder)['status'] == 'finished' and 'test accuracy' in (folder / 'log.txt').read_text()
  assert (_folder(tmp_path, 'learning_rate1e19') / 'log.txt').read_text().count('dropped from the runs') == 1


def test_a_dry_run_leaves_nothing_and_a_missing_sweep_is_named(tmp_path):
  done = run('sweep', *_flags(tmp_path, "axis('model.depth', 1, 2)", '--dry_run'))
  assert done.returncode == 0 and '2 to do' in done.stdout and not (tmp_path / 'runs').exists()
  done = run('sweep')
  assert done.returncode == 1 and '--sweep is missing' in done.stderr
