"""The command line as a person uses it: processes on real data."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import command_line
import jax
import numpy as np
import pytest
from command_line import ROOT, command, final_arrays, run, run_process

from vit_jax import config, records
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

RECIPE = command_line.recipe(
    "c.data.augment.crop, c.data.augment.crop_padding, c.data.augment.mixup = 'pad', 1, 0.2", 'c.model.dropout = 0.1',
    'c.optimizer.ema_decay = 0.9', 'c.train.steps = 60',
    'c.evaluate.every, c.system.log_every, c.system.save_every = 20, 7, 9')


def _command(recipe, workdir, *flags):
  return command('main', f'--config={recipe}', f'--workdir={workdir}', *flags)


def _run(recipe, workdir, *flags, **environment):
  return run('main', f'--config={recipe}', f'--workdir={workdir}', *flags, **environment)


@pytest.fixture(name='recipe', scope='module')
def _recipe(tmp_path_factory):
  path = tmp_path_factory.mktemp('recipe') / 'tiny.py'
  path.write_text(RECIPE)
  return path


@pytest.fixture(name='undisturbed', scope='module')
def _undisturbed(recipe, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
  return workdir, run_process('main', f'--config={recipe}', f'--workdir={workdir}')


def test_what_a_run_prints_and_leaves(undisturbed):
  workdir, done = undisturbed
  assert done.returncode == 0, done.stderr
  for said in ('parameters', 'GFLOPs per image', 'digits, 1,293 training images (144 val, 360 test)', 'step 60/60',
               'images/s', 'test accuracy', 'run folder', 'tensorboard'):
    assert said in done.stdout, said
  rows, record = records.read_rows(workdir / 'metrics.jsonl'), records.read_run(workdir)
  assert [r['step'] for r in rows if r['split'] == 'val'] == [20, 40, 60]
  assert [r['step'] for r in rows if r['split'] == 'train'] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
  assert [r['step'] for r in rows if r['split'] == 'test'] == [60]
  last = rows[-1]
  assert last['examples'] == 60 * 32 and last['unique_examples'] == 1293
  assert last['flops'] == last['examples'] * record['flops_per_example_train']
  assert last['epochs'] == pytest.approx(60 * 32 / 1293) and last['error'] == 1 - last['accuracy']
  assert not any(key in row for row in rows for key in ('time', 'seconds', 'images_per_s'))
  assert record['status'] == 'finished' and record['data']['classes'] == [str(i) for i in range(10)]
  assert record['results']['test']['loss'] == last['loss']
  events = {row['event'] for row in records.read_rows(workdir / 'events.jsonl')}
  assert {'start', 'compile', 'train', 'evaluate', 'save', 'finished'} <= events
  assert list((workdir / 'tensorboard').iterdir())


def test_the_finished_run_is_not_run_again(recipe, undisturbed):
  workdir, first = undisturbed
  before = (workdir / 'metrics.jsonl').stat().st_mtime_ns
  again = _run(recipe, workdir)
  assert again.returncode == 0 and before == (workdir / 'metrics.jsonl').stat().st_mtime_ns
  result = next(line for line in first.stdout.splitlines() if line.startswith('test accuracy'))
  assert result in again.stdout


def test_another_runs_folder_is_refused_with_the_differing_key(recipe, undisturbed):
  other = _run(recipe, undisturbed[0], '--config.optimizer.learning_rate=0.5')
  assert other.returncode == 1 and 'optimizer.learning_rate: 0.5, there 0.001' in other.stderr
  assert 'Traceback' not in other.stderr


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_byte_equal(recipe, undisturbed, tmp_path):
  workdir, rng, kills = tmp_path / 'run', np.random.default_rng(), 0
  for _ in range(3):
    process = subprocess.Popen(_command(recipe, workdir, '--config.system.save_every=9'), cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    at = int(rng.integers(0, 8))  # the number of training rows to see first
    for line in process.stdout:
      at -= line.startswith('step') and 'images/s' in line
      if at < 0:
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        break
    kills += process.wait() == -signal.SIGKILL
    process.stdout.close()
  done = _run(recipe, workdir)
  assert done.returncode == 0 and kills
  assert (workdir / 'metrics.jsonl').read_bytes() == (undisturbed[0] / 'metrics.jsonl').read_bytes()
  ours, theirs = final_arrays(workdir), final_arrays(undisturbed[0])
  assert ours == theirs and len(ours) > 40


def test_early_stopping_tests_the_best_and_says_so(recipe, tmp_path):
  flags = ('--config.optimizer.learning_rate=0.3', '--config.train.steps=400', '--config.evaluate.every=10',
           '--config.evaluate.patience=2')
  done = _run(recipe, tmp_path / 'run', *flags)
  assert done.returncode == 0, done.stderr
  rows = records.read_rows(tmp_path / 'run' / 'metrics.jsonl')
  val = [(row['loss'], row['step']) for row in rows if row['split'] == 'val']
  assert val[-1][1] < 400 and min(val)[1] == val[-3][1]
  assert rows[-1]['split'] == 'test' and rows[-1]['step'] == min(val)[1]
  said = ' '.join(done.stdout.split())  # the line is longer than a terminal
  assert f'{min(val)[1]} steps (the best on validation, of {val[-1][1]} steps)' in said


def test_a_loss_that_is_not_a_number_ends_the_run(recipe, tmp_path):
  done = _run(recipe, tmp_path / 'run', '--config.optimizer.learning_rate=1e19', '--config.schedule.name=constant')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'the gradient norm is inf at step' in done.stderr and 'learning_rate' in done.stderr


@pytest.mark.slow
def test_a_whole_run_with_profile_writes_a_trace_and_loads_no_tensorflow_and_no_torch(recipe, tmp_path):
  flags = _command(recipe, tmp_path / 'run', '--profile', '--config.train.steps=20')[2:]
  code = ('import atexit, runpy, sys\n'
          'heavy = ("tensorflow", "torch", "flax")\n'
          'atexit.register(lambda: print("loaded", [m for m in heavy if m in sys.modules]))\n'
          f'sys.argv = {flags!r}\n'
          'runpy.run_module("vit_jax.main", run_name="__main__")\n')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 0 and "loaded ['flax']" in done.stdout, done.stdout + done.stderr
  assert list((tmp_path / 'run' / 'profile').rglob('*.xplane.pb'))


def test_a_picture_that_does_not_decode_is_named_and_counted(tmp_path):
  from PIL import Image
  rng = np.random.default_rng(0)
  for label in ('cat', 'dog'):
    (tmp_path / 'pets' / label).mkdir(parents=True)
    for i in range(24):
      Image.fromarray(rng.integers(0, 255, (20, 16, 3), np.uint8)).save(tmp_path / 'pets' / label / f'{i}.png')
  bad = tmp_path / 'pets' / 'dog' / '5.png'
  bad.write_bytes(bad.read_bytes()[:100])
  recipe = tmp_path / 'pets.py'
  recipe.write_text(RECIPE)
  flags = (f'--config.data.source=folder:{tmp_path}/pets', '--config.data.image_size=16', '--config.data.batch_size=16',
           '--config.train.steps=4', '--config.data.val_examples=4')
  skipped = _run(recipe, tmp_path / 'run', *flags, '--config.data.on_error=skip')
  assert skipped.returncode == 0, skipped.stderr
  events = records.read_rows(tmp_path / 'run' / 'events.jsonl')
  named = [row['what'] for row in events if row['event'] == 'unreadable']
  stopped = _run(recipe, tmp_path / 'stopped', *flags)
  assert named and all('dog/5.png' in what for what in named) and 'skipped (weight 0)' in skipped.stdout
  assert stopped.returncode == 1 and '5.png' in stopped.stderr and 'Traceback' not in stopped.stderr


@pytest.mark.parametrize('flags, message', [
    (('--config.model.widht=3',), "config.model has no key 'widht'; did you mean 'width'?"),
    (('--config.model.width=abc',), "--config.model.width=abc"),
    (('--config.model.pool=clss',), "expected one of 'cls', 'gap', 'map', got 'clss'"),
    (('--confg=x',), "--confg: no such flag; did you mean 'config'?"),
    (('--config.train.epochs=2', '--config.train.examples=99'),
     'give exactly one of steps, epochs, examples, flops (given: epochs=2.0, examples=99)'),
    (('--config.data.source=digit',), "did you mean 'digits'?"),
    (('stray',), "'stray': unexpected argument"),
], ids=lambda v: v[0] if isinstance(v, tuple) else '')
def test_bad_input_is_answered_in_words_and_leaves_nothing(recipe, tmp_path, flags, message):
  done = _run(recipe, tmp_path / 'run', *flags)
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr, done.stderr
  assert not (tmp_path / 'run').exists()


@pytest.fixture(name='count', scope='module')
def _count():
  """A list that grows with each program that is compiled, or read from the cache of compiled ones."""
  seen = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, seconds, **_: seen.append(seconds) if event.endswith('/backend_compile_duration') else None)
  jax.jit(lambda x: x + 1)(np.float32(0))
  assert seen
  return seen


@pytest.fixture(name='compilations')
def _compilations(count):
  count.clear()
  return count


@pytest.mark.parametrize('change, message', [
    (dict(model={'patch_size': 3}), 'patch_size=3 does not divide the image of 8x8'),
    (dict(data={'batch_size': 30}), r'data\.batch_size=30: must be a multiple of 8 .* such as 24 or 32'),
    (dict(evaluate={'batch_size': 30}), r'evaluate\.batch_size=30'),
    (dict(system={'microbatches': 3}), r'multiple of 24 \(8 batch shards of the mesh x 3 micro-batches\)'),
    (dict(system={'mesh': {'data': 16}}), r'multiply to the 8 cpu device'),
    (dict(system={'mesh': {'tensor': 3, 'data': 1}}), r'system\.mesh'),
    (dict(data={'unique_examples': 10**6}), r'unique_examples'),
    (dict(data={'val_examples': 0}, evaluate={'patience': 2}), r'evaluate\.patience=2'),
    (dict(schedule={'warmup_steps': 99}), r'schedule\.warmup_steps=99'),
    (dict(optimizer={'beta1': 1.5}), r'optimizer\.beta1=1\.5'),
    (dict(family='vitt'), r"family='vitt': no such model family; did you mean 'vit'\?"),
], ids=str)
def test_what_cannot_be_done_is_refused_before_anything_is_compiled(tiny_config, compilations, change, message):
  tiny_config.update(change)
  with pytest.raises(UserError, match=message):
    run_lib.prepare(run_config.cast(tiny_config))
  assert not compilations


TINY_FAMILIES = {  # and a learning rate that is seen in 40 steps
    'swin': (dict(width=16, depths=(2, 2), num_heads=(2, 2), window_size=3, patch_size=2), 3e-3),
    'resnet': (dict(block='basic', depths=(1, 1), widths=(8, 16), stem='full', stem_width=8), 3e-2),
    'convnext': (dict(depths=(1, 1), widths=(8, 16), patch_size=2, kernel_size=3), 3e-3),
}


@pytest.mark.parametrize('family', ['convnext', *(pytest.param(name, marks=pytest.mark.slow)
                                              for name in ('swin', 'resnet'))])
def test_every_family_trains(family, tmp_path):
  fields, learning_rate = TINY_FAMILIES[family]
  c = config.defaults(family)
  c.model.update(fields)
  c.data.batch_size, c.optimizer.ema_decay, c.optimizer.learning_rate = 32, 0.9, learning_rate
  c.train.steps, c.evaluate.every = 40, 20
  prepared = run_lib.prepare(run_config.cast(c))
  alone = mesh_lib.make_mesh(mesh_lib.MeshConfig(1, 1, 1), jax.devices()[:1])
  loop.train(dataclasses.replace(prepared, mesh=alone), tmp_path / 'run', Display())
  rows = [row for row in records.read_rows(tmp_path / 'run' / 'metrics.jsonl') if row['split'] == 'val']
  assert rows[-1]['loss'] < min(rows[0]['loss'], 2.2)  # ln 10 = 2.30


def test_imagenet_recipe_without_imagenet_says_how_to_get_it(tmp_path):
  done = _run('configs/vit_b16.py', tmp_path / 'run', f'--config.data.data_dir={tmp_path}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  for said in ('python -m vit_jax.data.prepare --name=imagenet2012', 'ILSVRC2012_img_train.tar'):
    assert said in done.stderr


@pytest.mark.slow
def test_imagenet_recipe_runs_anywhere_on_fake_images(tmp_path):
  done = _run('configs/vit_s16.py:runlocal', tmp_path / 'run')
  assert done.returncode == 0, done.stderr
  assert 'step 4/4' in done.stdout


@pytest.mark.parametrize('program', ['main', 'sweep', 'law', 'plan', 'predict', 'convert', 'prune'])
def test_every_program_helps(program):
  for start, flag in ((run_process, '--help'), (run, '-h')):
    done = start(program, flag)
    assert done.returncode == 0 and f'vit_jax.{program}' in done.stdout, done.stdout + done.stderr


def test_help_needs_no_more_than_the_flags():
  done = run('main', '--help')
  assert '--workdir' in done.stdout and 'Exit codes' in done.stdout
  code = 'import sys, vit_jax.main; print(json.dumps([m for m in ("jax", "flax") if m in sys.modules]))'
  loaded = subprocess.check_output([sys.executable, '-c', 'import json; ' + code], text=True, cwd=ROOT)
  assert json.loads(loaded) == []


@pytest.mark.slow
def test_quickstart_reaches_what_it_promises(tmp_path):
  done = _run('configs/quickstart.py', tmp_path / 'run', env=command_line.AS_USERS)
  assert done.returncode == 0, done.stderr
  assert records.read_run(tmp_path / 'run')['results']['test']['accuracy'] >= 0.95
