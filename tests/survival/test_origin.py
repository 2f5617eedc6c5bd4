"""A run folder is told from one of other inputs, and code that changed is said and kept on record."""

import io
import json
import shutil

import command_line
import numpy as np
import pytest
from rich.console import Console

from vit_jax import provenance, records
from vit_jax.errors import UserError
from vit_jax.inspection import evaluation
from vit_jax.survival import origin
from vit_jax.training import config as run_config
from vit_jax.training import loop, run_folder
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


def _display():
  return Display(Console(file=io.StringIO(), width=300))


@pytest.fixture(name='idx')
def _idx(tmp_path):
  """Writes an IDX data set: idx(shift) has its labels moved by that."""
  rng = np.random.default_rng(0)
  images, labels = rng.integers(0, 256, (120, 8, 8), np.uint8), np.arange(120, dtype=np.uint8) % 4

  def write(shift=0):
    folder = tmp_path / 'd'
    folder.mkdir(exist_ok=True)
    for split, part in (('train', slice(0, 80)), ('t10k', slice(80, 120))):
      x, y = images[part], (labels[part] + shift) % 4
      header = lambda array: bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
      (folder / f'{split}-images-idx3-ubyte').write_bytes(header(x) + x.tobytes())
      (folder / f'{split}-labels-idx1-ubyte').write_bytes(header(y) + y.tobytes())
    return folder

  return write


def _prepare(tiny_config, folder, **changes):
  tiny_config.data.source = f'idx:{folder}'
  tiny_config.train.steps = 4
  tiny_config.data.batch_size = 16
  tiny_config.update(changes)
  return run_lib.prepare(run_config.cast(tiny_config))


def test_other_data_are_refused_and_classes_never_overwritten(tiny_config, idx, tmp_path):
  run = _prepare(tiny_config, idx())
  loop.train(run, tmp_path / 'run', _display())
  before = (tmp_path / 'run' / records.RUN).read_bytes()
  shifted = _prepare(tiny_config, idx(3))
  assert shifted.config_hash == run.config_hash
  with pytest.raises(UserError, match='the train data are others'):
    run_folder.finished_results(shifted, tmp_path / 'run')
  record = json.loads(before)
  record.pop('results')
  (tmp_path / 'run' / records.RUN).write_text(json.dumps(record | {'status': 'running'}))  # stopped before its end
  with pytest.raises(UserError, match='begun with other inputs: the train data are others'):
    loop.train(shifted, tmp_path / 'run', _display())
  assert records.read_run(tmp_path / 'run')['data'] == record['data']
  with pytest.raises(UserError, match='test data of d are not those that the run was trained with'):
    evaluation.evaluate(str(tmp_path / 'run'))
  idx()
  assert run_folder.finished_results(_prepare(tiny_config, idx()), tmp_path / 'run') is None


def test_other_classes_and_another_teacher():
  ours = {'data': {'classes': ['cat', 'dog'], 'fingerprint': {'train': 'a'}}, 'teacher': {'digest': 'x'}}
  origin.refuse_other({}, ours, 'runs/r')  # an older run.json says nothing
  origin.refuse_other(ours, ours, 'runs/r')
  with pytest.raises(UserError, match="runs/r was begun with other inputs: .*'kitten' is now 'cat'"):
    origin.refuse_other({'data': {'classes': ['kitten', 'dog']}}, ours, 'runs/r')
  with pytest.raises(UserError, match='the teacher is another one .digest y, now x'):
    origin.refuse_other(ours | {'teacher': {'digest': 'y'}}, ours, 'runs/r')


def test_which_steps_are_by_which_code():
  ours = {'code': 'new', 'git': None}
  assert origin.codes(None, ours, 0) == [{'from_step': 0, 'code': 'new', 'git': None}]
  there = {'codes': [{'from_step': 0, 'code': 'old', 'git': 'c0ffee' + '0' * 34}]}
  mixed = origin.codes(there, ours, 30)
  assert [(part['from_step'], part['code']) for part in mixed] == [(0, 'old'), (30, 'new')]
  assert 'its first 30 steps are by other code (old, commit c0ffee' in origin.mixed(mixed)
  assert origin.codes({'codes': mixed}, ours, 40) == mixed and origin.mixed(there['codes']) is None
  assert origin.codes({'codes': mixed}, ours, 0) == [{'from_step': 0, 'code': 'new', 'git': None}]  # all done again
  older = origin.codes({'git': 'abc'}, ours, 7)
  assert older[0]['code'] is None and older[1]['from_step'] == 7


def test_a_run_finished_or_continued_by_other_code_says_so(tiny_config, tmp_path, monkeypatch):
  tiny_config.update(train=dict(steps=8), evaluate=dict(every=4))
  prepare = lambda: run_lib.prepare(run_config.cast(tiny_config))
  notes = []
  shown = _display()
  shown.note = notes.append
  first = prepare()
  loop.train(first, tmp_path / 'run', shown)
  assert records.read_run(tmp_path / 'run')['code'] == provenance.code()
  said = run_folder.finished_words(prepare(), tmp_path / 'run')
  assert said.startswith('finished on 20') and said.endswith('; nothing was trained')

  monkeypatch.setattr(provenance, 'code', lambda modules=(): 'other')
  said = run_folder.finished_words(prepare(), tmp_path / 'run')
  assert f'by code {first.code}' in said and 'the code is other now' in said and '--config.tag=' in said
  record = records.read_run(tmp_path / 'run')
  record.pop('results')
  (tmp_path / 'run' / records.RUN).write_text(json.dumps(record | {'status': 'running'}))
  shutil.rmtree(tmp_path / 'run' / records.CHECKPOINTS / '8')
  loop.train(prepare(), tmp_path / 'run', shown)
  assert [(part['from_step'], part['code']) for part in records.read_run(tmp_path / 'run')['codes']] == [
      (0, first.code), (4, 'other')]
  assert any('first 4 steps are by other code' in note for note in notes)
  begun = [row for row in records.read_rows(tmp_path / 'run' / records.EVENTS) if row['event'] == 'code']
  assert [(row['step'], row['code']) for row in begun] == [(0, first.code), (4, 'other')]


def test_a_tag_makes_another_run(tiny_config):
  plain = run_config.cast(tiny_config)
  tiny_config.tag = 'relu'
  assert run_config.run_hash(run_config.cast(tiny_config)) != run_config.run_hash(plain)


def test_the_quickstart_says_that_nothing_was_trained(tmp_path):
  recipe = tmp_path / 'recipe.py'
  recipe.write_text(command_line.recipe('c.train.steps = 2'))
  flags = (f'--config={recipe}', f'--workdir={tmp_path / "run"}')
  assert command_line.run('main', *flags).returncode == 0
  again = command_line.run('main', *flags)
  assert again.returncode == 0 and 'nothing was trained' in again.stdout
