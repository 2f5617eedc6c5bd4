"""Data and logs in S3, in whose place moto's server is on loopback. Checkpoints are not kept there, which is said."""

import io
import logging

import command_line
import numpy as np
import pytest
from PIL import Image

moto_server = pytest.importorskip('moto.moto_server.threaded_moto_server', reason='moto is not installed')
pytest.importorskip('s3fs', reason='s3fs is not installed')

LINES = ("c.data.source, c.data.image_size, c.data.num_classes, c.train.steps = 'folder:pets', (8, 8), 3, 20",
         "c.evaluate.every, c.system.log_every, c.data.augment.crop = 20, 5, 'inception'")


@pytest.fixture(name='env', scope='module')
def _env():
  """The environment in which programs find the server."""
  logging.getLogger('werkzeug').setLevel(logging.ERROR)  # a line per request
  server = moto_server.ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  yield command_line.ON_CPU | {
      'AWS_ENDPOINT_URL': f'http://{host}:{port}', 'AWS_ACCESS_KEY_ID': 'test', 'AWS_SECRET_ACCESS_KEY': 'test',
      'AWS_REGION': 'us-east-1', 'AWS_DEFAULT_REGION': 'us-east-1', 'AWS_EC2_METADATA_DISABLED': 'true'}
  server.stop()


@pytest.fixture(name='store', scope='module')
def _store(env):
  """fsspec's view of the server, with a bucket."""
  import s3fs
  store = s3fs.S3FileSystem(key='test', secret='test', endpoint_url=env['AWS_ENDPOINT_URL'])
  store.mkdir('bucket')
  return store


@pytest.fixture(name='data', scope='module')
def _data(store, tmp_path_factory):
  """A folder of pictures, which the bucket has as well."""
  folder, rng = tmp_path_factory.mktemp('data'), np.random.default_rng(0)
  for label, name in enumerate(('cat', 'dog', 'owl')):
    (folder / 'pets' / name).mkdir(parents=True)
    for i in range(20):
      file = io.BytesIO()
      Image.fromarray((rng.integers(0, 80, (8, 8, 3)) + 80 * label).astype(np.uint8)).save(file, 'png')
      (folder / 'pets' / name / f'{i}.png').write_bytes(file.getvalue())
      store.pipe(f'bucket/data/pets/{name}/{i}.png', file.getvalue())
  return folder


def _run(env, program, *flags, code=0):
  done = command_line.run(program, *flags, env=env)
  assert done.returncode == code and 'Traceback' not in done.stderr, done.stdout + done.stderr
  return done.stdout + done.stderr


@pytest.mark.slow
def test_data_are_indexed_and_read_and_logs_are_read(env, store, data, tmp_path):
  (tmp_path / 'pets.py').write_text(command_line.recipe(*LINES))
  train = f'--config={tmp_path}/pets.py'
  said = _run(env, 'data.prepare', '--index', '--source=folder:pets', '--data_dir=s3://bucket/data')
  assert 'index: s3://bucket/data/pets/vit_jax-index-train.arrow' in said
  for name, place in (('disk', data), ('s3', 's3://bucket/data')):
    _run(env, 'main', train, f'--config.data.data_dir={place}', f'--workdir={tmp_path}/{name}')
  logs = [(tmp_path / name / 'metrics.jsonl').read_bytes() for name in ('disk', 's3')]
  assert logs[0] == logs[1] and logs[0].count(b'\n') == 6
  for file in ('run.json', 'metrics.jsonl', 'events.jsonl'):
    store.put(str(tmp_path / 's3' / file), f'bucket/law/run/{file}')
  assert 'run  finished    20  20' in _run(env, 'sweep', '--status', 's3://bucket/law')
  said = _run(env, 'main', train, f'--config.data.data_dir={data}', f'--workdir={tmp_path}/next',
              '--config.pretrained.path=s3://bucket/law/run', code=1)
  assert 's3://bucket/law/run: checkpoints are kept on disks and in Cloud Storage' in said


def test_a_bucket_that_is_not_there_is_said(env, store, tmp_path):
  (tmp_path / 'pets.py').write_text(command_line.recipe(*LINES))
  said = _run(env, 'main', f'--config={tmp_path}/pets.py', '--config.data.data_dir=s3://other-bucket/data',
              f'--workdir={tmp_path}/run', code=1)
  assert 'folder:s3://other-bucket/data/pets: no such folder' in said
