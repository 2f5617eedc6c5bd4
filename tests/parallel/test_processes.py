"""Several real processes on this machine (gloo), beside one."""

import os
import random
import shutil
import signal
import time

import command_line
import numpy as np
import pytest
from several_processes import finish, spoken, start, train

from vit_jax import exits, records
from vit_jax.errors import UserError
from vit_jax.parallel import processes

LINES = ("c.data.augment.crop, c.data.augment.mixup = 'inception', 0.2", 'c.model.dropout, c.train.steps = 0.1, 30',
         'c.evaluate.every, c.system.log_every, c.system.save_every = 10, 1, 10')
# What each process reads: the rows that it owns, and their pictures.
READ = '''
import sys
import jax, numpy as np
jax.config.update('jax_platforms', 'cpu')
from vit_jax import config
from vit_jax.parallel import mesh, processes
from vit_jax.training import config as run_config, run
recipe, out, address, count, index = sys.argv[1:]
if int(count) > 1:
  processes.start(address, int(count), int(index))
r = run.prepare(run_config.cast(config.load_recipe(recipe)))
rows = processes.rows(mesh.sharding(r.mesh, 'batch'), 32)
for name, batches in (('train', r.data.train_batches(0, 5, 2, rows)), ('val', r.data.eval_batches('val', 32, rows))):
  batches = list(batches)
  np.savez(f'{out}/{name}-{index}.npz', rows=rows, **{k: np.stack([b[k] for b in batches]) for k in batches[0]})
for batch in r.train_batches(5, lambda errors: None):
  total = jax.jit(lambda x: x.astype('uint32').sum(), out_shardings=mesh.sharding(r.mesh))(batch['image'])
  print('sum', int(total))
  break
'''


@pytest.fixture(name='recipe', scope='module')
def _recipe(tmp_path_factory):
  path = tmp_path_factory.mktemp('recipe') / 'tiny.py'
  path.write_text(command_line.recipe(*LINES))
  return path


@pytest.fixture(name='alone', scope='module')
def _alone(recipe, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  codes, outputs = finish(train(recipe, workdir, 1))
  assert codes == [0], outputs
  return workdir


@pytest.mark.parametrize('count, mesh', [
    (2, ()), pytest.param(4, ('--config.system.mesh.preset=fsdp_tp',), marks=pytest.mark.slow)])
def test_many_processes_train_as_one(recipe, alone, tmp_path, count, mesh):
  codes, outputs = finish(train(recipe, tmp_path / 'run', count, *mesh))
  assert codes == [0] * count, outputs
  assert 'test accuracy' in outputs[0][0]
  assert not any(spoken(out) for out, _ in outputs[1:]), 'one process speaks'
  ours, theirs = (records.read_rows(folder / 'metrics.jsonl') for folder in (tmp_path / 'run', alone))
  assert [(r['split'], r['step']) for r in ours] == [(r['split'], r['step']) for r in theirs]
  for a, b in zip(ours, theirs):
    if a['step'] <= 20:
      np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-5)
    assert a['loss'] == pytest.approx(b['loss'], rel=2e-3)
  record = records.read_run(tmp_path / 'run')
  assert record['status'] == 'finished' and record['devices']['processes'] == count
  # The same command again prints the results, and one process alone goes on from a checkpoint that many saved.
  record['status'] = record.pop('results') and 'running'
  records.write_run(tmp_path / 'run', record)
  codes, outputs = finish(train(recipe, tmp_path / 'run', 1))
  assert codes == [0] and 'resumed at step 30' in outputs[0][0], outputs


@pytest.mark.slow
@pytest.mark.parametrize('count, mesh', [(2, ()), (4, ('c.system.mesh.preset = "fsdp_tp"',))])
def test_their_batches_are_those_of_one(tmp_path, count, mesh):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(command_line.recipe(*LINES, *mesh))

  def read(n):
    out = tmp_path / str(n)
    out.mkdir()
    codes, outputs = finish(start(n, lambda address, i: ['-c', READ, recipe, out, address, str(n), str(i)]))
    assert codes == [0] * n, outputs
    return {spoken(out) for out, _ in outputs}

  sums = {n: read(n) for n in (1, count)}
  assert len(sums[1]) == 1 and sums[1] == sums[count]  # the global array, on every process
  for name in ('train', 'val'):
    whole, seen = np.load(tmp_path / '1' / f'{name}-0.npz'), set()
    for index in range(count):
      part = np.load(tmp_path / str(count) / f'{name}-{index}.npz')
      seen |= set(part['rows'])
      for key in ('image', 'label', 'weight'):
        np.testing.assert_array_equal(part[key], whole[key][:, part['rows']])
    assert seen == set(range(32))


@pytest.mark.slow
def test_they_agree_on_what_is_damaged_and_save_by_the_clock(recipe, alone, tmp_path):
  """Of a checkpoint whose arrays are cut in half both go back to the one before."""
  workdir, log = tmp_path / 'run', records.METRICS
  shutil.copytree(alone, workdir)
  record = records.read_run(workdir)
  del record['results']
  records.write_run(workdir, record | {'status': 'running'})
  before, newest = records.saved_steps(workdir)[-2:]
  for path in (workdir / 'checkpoints' / str(newest) / 'state').rglob('d/*'):
    os.truncate(path, path.stat().st_size // 2)
  codes, outputs = finish(train(recipe, workdir, 2, '--config.system.save_every=1000',
                                  '--config.system.save_minutes=1e-6'))
  assert codes == [0, 0], outputs
  assert f'the checkpoint of step {newest} cannot be used' in outputs[0][0], outputs
  assert f'resumed at step {before} ' in outputs[0][0] and (workdir / 'checkpoints' / f'damaged-{newest}').exists()
  saves = [row['step'] for row in records.read_rows(workdir / 'events.jsonl') if row['event'] == 'save']
  after = list(range(before + 1, 31))  # 21, unless a slow disk delayed the save of step 20
  assert saves[-len(after):] == after, 'a row is logged at each step'
  ours, theirs = (records.read_rows(folder / log) for folder in (workdir, alone))
  np.testing.assert_allclose([row['loss'] for row in ours], [row['loss'] for row in theirs], rtol=1e-4)


def test_an_error_of_all_is_told_and_ends_all(recipe, alone, tmp_path):
  codes, outputs = finish(train(recipe, alone, 2, '--config.seed=1'))
  assert codes == [1, 1] and 'holds another run' in outputs[0][1] and 'Traceback' not in outputs[0][1] + outputs[1][1]


@pytest.mark.parametrize('fault', [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_lost_process_ends_the_others(recipe, tmp_path, fault):
  """Long before JAX's own 100 s, and with a code that an engine tries again."""
  log = tmp_path / 'run' / 'metrics.jsonl'
  started = train(recipe, tmp_path / 'run', 2, '--config.train.steps=100000', '--heartbeat_s=8',
                   '--config.evaluate.every=100000', '--config.system.save_every=100000')
  try:
    while not (log.exists() and log.read_text().count('\n') > 3):
      assert started[0].poll() is None, started[0].communicate()
      time.sleep(0.2)
    started[1].send_signal(fault)
    errors = started[0].communicate(timeout=120)[1]
  finally:
    for process in started:
      process.kill()
  assert started[0].returncode in (exits.LOST, -signal.SIGABRT), errors
  assert exits.retried(exits.LOST)


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_whenever_one_is_lost_the_other_ends_so_that_it_is_started_again(recipe, tmp_path, victim):
  """At a random moment after they have come together: creating the state, compiling, training, saving."""
  begun = tmp_path / 'run' / records.EVENTS
  started = train(recipe, tmp_path / 'run', 2, '--config.train.steps=100000', '--heartbeat_s=8')
  try:
    while not (begun.exists() and begun.stat().st_size):
      assert started[0].poll() is None, started[0].communicate()
      time.sleep(0.01)
    time.sleep(random.uniform(0, 6))
    started[victim].kill()
    errors = started[1 - victim].communicate(timeout=120)[1]
  finally:
    for process in started:
      process.kill()
  assert started[1 - victim].returncode in (exits.LOST, -signal.SIGABRT), errors


@pytest.mark.slow
def test_one_is_told_to_stop_and_all_do(recipe, tmp_path):
  """Each saves its part of the same step and exits 42; another number of processes goes on from there."""
  log = tmp_path / 'run' / 'events.jsonl'
  flags = '--config.train.steps=200', '--config.evaluate.every=50', '--config.system.save_every=100'
  started = train(recipe, tmp_path / 'run', 2, *flags)
  while not (log.exists() and '"compile"' in log.read_text()):
    assert started[0].poll() is None, started[0].communicate()
    time.sleep(0.1)
  started[1].send_signal(signal.SIGTERM)
  codes, outputs = finish(started)
  assert codes == [42, 42], outputs
  codes, outputs = finish(train(recipe, tmp_path / 'run', 1, *flags))
  assert codes == [0] and 'resumed at step' in outputs[0][0], outputs
  rows = records.read_rows(tmp_path / 'run' / 'metrics.jsonl')
  assert [row['step'] for row in rows if row['split'] == 'train'] == list(range(1, 201))


@pytest.mark.parametrize('arguments, message', [
    (('10.0.0.2',), r'--distributed=10\.0\.0\.2: expected none, auto, or HOST:PORT'),
    (('10.0.0.2:80',), '--num_processes is missing'),
    (('10.0.0.2:80', 2), '--process_id is missing'),
    (('10.0.0.2:80', 2, 2), r'--process_id=2: expected 0 to 1'),
    (('none', 2), r'--num_processes=2: only with --distributed=HOST:PORT'),
    (('auto',), r'--distributed=auto: the processes did not come together'),
])
def test_bad_arguments(arguments, message, monkeypatch):
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'KUBERNETES_', 'TPU_')):
      monkeypatch.delenv(name)
  with pytest.raises(UserError, match=message):
    processes.start(*arguments)


def test_one_process_decides_for_itself():
  assert processes.is_writer() and processes.from_writer(lambda: {'a': [1, None]}) == {'a': [1, None]}
