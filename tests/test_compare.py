"""Two runs compared: the first row and tensor that differ, what does in their records, and what is left out."""

import contextlib
import importlib
import io
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from tests import command_line
from vit_jax import checkpoint, recipe, records
from vit_jax.comparison import arrays, numeric, runs, settings, terminal
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

BIAS = 'params/head/bias'
compare = importlib.import_module('vit_jax.compare')  # the command; the package's attribute is the function


@pytest.fixture(name='trained', scope='module')
def _trained(tmp_path_factory):
  """{name: run folder}: a run, the same again, and one with another learning rate."""
  folder = tmp_path_factory.mktemp('runs')
  (folder / 'recipe.py').write_text(command_line.recipe(
      'c.train.steps = 4', 'c.evaluate.every = c.system.log_every = c.system.save_every = 2'))
  for name, rate in (('a', 1e-2), ('again', 1e-2), ('faster', 2e-2)):
    c = recipe.load_recipe(str(folder / 'recipe.py'))
    c.optimizer.learning_rate = rate
    loop.train(run_lib.prepare(run_config.cast(c)), folder / name, Display())
  return {name: folder / name for name in ('a', 'again', 'faster')}


@pytest.fixture(name='copy')
def _copy(trained, tmp_path):
  """A copy of the run that a test may damage."""
  return shutil.copytree(trained['a'], tmp_path / 'copy')


def _rows(workdir):
  return records.read_rows(workdir / records.METRICS)


def _write_rows(workdir, rows):
  (workdir / records.METRICS).write_text(''.join(json.dumps(row) + '\n' for row in rows))


def _write(workdir, step, tree, **record):
  """A run folder with nothing but a checkpoint."""
  records.write_run(workdir, {'status': 'running', **record})
  with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
    checkpoints.save(step, tree, {})
  return workdir


def _printed(comparison):
  out = io.StringIO()
  terminal.show(Console(file=out, width=200), comparison)
  return out.getvalue()


def test_a_run_equals_itself_and_its_repetition(trained, monkeypatch):
  monkeypatch.setattr(arrays.Saved, 'read', lambda *_: pytest.fail('arrays were read though the digests agree'))
  with contextlib.closing(arrays.Saved(trained['a'])) as saved:
    total = sum(len(saved.digests(step)) for step in (2, 4))
  for other in ('a', 'again'):
    found = runs.compare(trained['a'], trained[other])
    assert found.equal and found.step is None and not found.record and total > 100
    assert found.verdict() == f'equal: {len(_rows(trained["a"]))} rows, 2 checkpoints, {total} arrays bit for bit'
    assert 'nothing differs' in _printed(found) and 'they part' not in _printed(found)


def test_another_learning_rate(trained, monkeypatch):
  monkeypatch.chdir(trained['a'].parent)
  found = runs.compare('a', 'faster')
  assert not found.equal and found.step == 2
  assert {name: [tuple(s) for s in each] for name, each in found.record.items()} == {
      'config': [('optimizer.learning_rate', 0.01, 0.02)]}
  a, b = (next(row for row in _rows(trained[name]) if row['step'] == 2) for name in ('a', 'faster'))
  first = found.logs.first[0]
  assert (first.split, first.step, first.column, first.a, first.b) == ('train', 2, 'loss', a['loss'], b['loss'])
  assert first.relative == pytest.approx(abs(a['loss'] - b['loss']) / max(a['loss'], b['loss']))
  rate = next(growth for growth in found.logs.growth if growth.column == 'learning_rate')
  assert rate.first.relative == pytest.approx(0.5) and rate.rows == rate.of == 2
  assert not {'examples', 'flops'} & {growth.column for growth in found.logs.growth}
  step = found.checkpoints.first
  assert step.step == 2 and found.checkpoints.differing == [2, 4] and not step.only_a and not step.only_b
  sizes = [tensor.relative for tensor in step.tensors]
  assert sizes == sorted(sizes, reverse=True) and found.verdict().startswith('they part at step 2: train loss is ')
  assert step.tensors[0].name in found.verdict() and step.tensors[0].name in _printed(found)
  by_name = {tensor.name: tensor for tensor in step.tensors}
  assert by_name['hparams/learning_rate'].relative == pytest.approx(0.5) and 'key_data' not in by_name


def test_one_element_changed_on_another_mesh(trained, copy):
  with contextlib.closing(arrays.Saved(copy)) as saved:
    flat = {path: array for entry in saved.entries(4) for path, array in saved.read(4, entry).items()}
  largest = np.abs(flat[BIAS]).max()
  flat[BIAS] = flat[BIAS].copy()
  flat[BIAS][3] += largest / 2
  shutil.rmtree(copy / 'checkpoints' / '4')
  mesh = jax.make_mesh((2,), ('x',), devices=jax.devices()[:2])
  split = lambda array: NamedSharding(mesh, PartitionSpec(*(['x'] if array.ndim and len(array) % 2 == 0 else [])))
  tree = traverse_util.unflatten_dict({path: jax.device_put(array, split(array)) for path, array in flat.items()},
                                      sep='/')
  with contextlib.closing(checkpoint.Checkpoints(copy)) as checkpoints:
    checkpoints.save(4, tree, {})
  found = runs.compare(trained['a'], copy)
  assert found.step == 4 and not found.logs.first and found.checkpoints.differing == [4]
  tensor, = found.checkpoints.first.tensors  # none but this one: the other mesh changes no digest
  assert (tensor.name, tensor.elements, tensor.of) == (BIAS, 1, 10)
  assert tensor.absolute == pytest.approx(largest / 2, rel=1e-6)
  assert tensor.relative == pytest.approx(tensor.absolute / max(largest, np.abs(flat[BIAS]).max()))
  within = runs.compare(trained['a'], copy, tolerance=0.6)
  assert within.equal and within.checkpoints.beyond is None and within.checkpoints.first.step == 4
  assert within.verdict().startswith('equal within 0.6: ') and 'bit for bit' not in within.verdict()
  assert not runs.compare(trained['a'], copy, tolerance=0.1).equal


def test_tolerance_names_the_first_row_beyond_it(trained, copy):
  rows = _rows(copy)
  rows[0]['loss'] *= 1 + 1e-9
  rows[-1]['accuracy'] += 0.25
  _write_rows(copy, rows)
  found = runs.compare(trained['a'], copy, tolerance=1e-6)
  assert (found.logs.first[0].step, found.logs.first[0].column) == (2, 'loss') and found.step == 4
  assert [(cell.split, cell.column) for cell in found.logs.beyond] == [('test', 'accuracy')]
  assert runs.compare(trained['a'], copy).step == 2
  assert runs.compare(trained['a'], copy, tolerance=1.0).equal


def test_records_differ_and_numbers_do_not(copy, trained):
  record = records.read_run(copy)
  record['data']['classes'][3], record['data']['fingerprint']['val'] = 'three', 'abc'
  record['versions']['jax'], record['mesh'] = '9.9', {'data': 1}
  record |= {'git': 'f00', 'code': 'f1', 'lineage': {'codes': [[0, 'f1']]}, 'unheard_of': 1}
  record['config']['system']['workers'] = 2
  records.write_run(copy, record)
  found = runs.compare(trained['a'], copy)
  assert found.equal
  keys = {section: [setting.key for setting in each] for section, each in found.record.items()}
  assert keys == {'config.system': ['workers'], 'code': ['git', 'code'],
                  'data': ['data.classes.3', 'data.fingerprint.val'], 'versions': ['versions.jax'],
                  'devices': ['mesh.data', 'mesh.fsdp', 'mesh.tensor'], 'other': ['lineage.codes', 'unheard_of']}
  assert found.record['data'][0] == ('data.classes.3', '3', 'three')
  assert found.record['data'][1].b == 'abc'
  told = json.loads(found.to_json())
  assert 'abc' in [setting.get('b') for setting in told['record']['data']] and told['equal']


def test_a_digest_beside_a_table_of_digests():
  found = settings.differences({'code': 'f0'}, {'code': {'layers': 'f1'}})
  assert [tuple(setting) for setting in found['code']] == [
      ('code', 'f0', settings.ABSENT), ('code.layers', settings.ABSENT, 'f1')]


def test_unfinished_runs_are_compared_as_far_as_both_go(trained, copy):
  rows = _rows(copy)
  _write_rows(copy, [row for row in rows if row['step'] == 2])
  assert runs.compare(trained['a'], copy).step == 4  # it says that it has finished
  records.write_run(copy, records.read_run(copy) | {'status': 'running'})
  shutil.rmtree(copy / 'checkpoints' / '4')
  found = runs.compare(copy, trained['a'])
  assert found.equal and found.verdict().startswith('equal as far as both go: 2 rows, 1 checkpoint, ')
  assert found.checkpoints.only_b == [4] and len(found.logs.only_b) == len(rows) - 2
  _write_rows(copy, rows[1:])  # a row is lost in the middle
  found = runs.compare(copy, trained['a'])
  assert not found.equal and found.step == 2 and 'only B has the row of train' in found.verdict()


def test_a_branch_has_no_rows_of_its_trunk(trained, copy):
  records.write_run(copy, records.read_run(copy) | {'lineage': {'trunk': 'f0', 'step': 2}})
  _write_rows(copy, [row for row in _rows(copy) if row['step'] > 2])
  assert runs.compare(trained['a'], copy).equal


def test_another_log_every(trained, copy):
  record = records.read_run(copy)
  record['config']['system']['log_every'] = 4
  records.write_run(copy, record)
  _write_rows(copy, [row | {'loss': 9.} if row['split'] == 'train' else row for row in _rows(copy)])
  found = runs.compare(trained['a'], copy)
  assert found.equal and found.logs.compared == 3 and 'log_every is 2, there 4' in _printed(found)
  assert found.checkpoints.arrays < runs.compare(trained['a'], trained['a']).checkpoints.arrays


def test_other_arrays(tmp_path):
  same = {'step': np.int32(3)}
  a = _write(tmp_path / 'a', 3, {'params': {'x': np.zeros((2, 3), np.float32), 'y': np.ones(4, np.float32)}, **same})
  b = _write(tmp_path / 'b', 3, {'params': {'x': np.zeros((3, 2), np.float32),
                                            'y': np.array([1, np.nan, 1, 1], np.float32)}, 'ema': np.ones(1), **same})
  found = runs.compare(a, b, tolerance=10.)
  step = found.checkpoints.first
  tensors = {tensor.name: tensor for tensor in step.tensors}
  assert set(tensors) == {'params/x', 'params/y'} and step.only_b == ['ema'] and not step.only_a
  assert (tensors['params/x'].a, tensors['params/x'].b) == ('float32[2,3]', 'float32[3,2]')
  assert (tensors['params/y'].elements, tensors['params/y'].relative) == (1, None)
  assert not found.equal and 'only B has 1 array (ema)' in _printed(found)


def test_nothing_in_common(tmp_path):
  one, other = (_write(tmp_path / str(step), step, {'step': np.int32(step)}) for step in (1, 2))
  found = runs.compare(one, other)
  assert not found.equal and found.verdict().startswith('nothing to compare')


@pytest.mark.parametrize('name, content, message', [
    ('metrics.jsonl', b'{"split": "train", "step": 2}\n\377\n', r'metrics.jsonl, line 2: not JSON'),
    ('metrics.jsonl', b'{}\n', r'metrics.jsonl, line 1: expected a step and a split, got step=None'),
    ('metrics.jsonl', None, r'metrics.jsonl: no such file, although the run has finished'),
    ('run.json', b'', r'run.json: empty, expected a JSON object'),
    ('run.json', None, r'copy: no run there'),
    ('checkpoints/2/record/metadata', b'{"arrays": {}}', r'checkpoints/2: this checkpoint cannot be read: its record'),
])
def test_damage(trained, copy, name, content, message):
  (copy / name).unlink()
  if content is not None:
    (copy / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    runs.compare(trained['a'], copy)


@pytest.mark.parametrize('arguments, tolerance, message', [
    (('a',), 0., 'expected two run folders, got 1: '), (('a', 'b'), float('nan'), '--tolerance=nan: expected'),
    (('a', 'b'), -1., '--tolerance=-1.0'), (('nowhere', 'b'), 0., 'nowhere: no run there')])
def test_bad_input(arguments, tolerance, message):
  with pytest.raises(UserError, match=message):
    runs.compare(*arguments, tolerance) if len(arguments) == 2 else compare.main(arguments)


def test_control_characters_are_spelled_out(trained, copy):
  _write_rows(copy, [row | {'\x1b]52;c;eA\x07': '\x1b[2J'} for row in _rows(copy)])
  found = _printed(runs.compare(trained['a'], copy))
  assert '\x1b' not in found and '\x07' not in found and r'\x1b[2J' in found


def test_how_far_arrays_are_apart():
  bfloat16 = lambda *values: np.array(values, ml_dtypes.bfloat16)
  assert numeric.arrays_apart(bfloat16(1, 2, 4), bfloat16(1, 2, 3)) == (1, 0.25, 1)
  assert numeric.arrays_apart(np.array([0.0, 1]), np.array([-0.0, 1])) == (0, 0, 1)
  assert numeric.arrays_apart(np.array([2**32 - 1], np.uint32), np.array([0], np.uint32)) == (2**32 - 1, 1, 1)
  assert numeric.arrays_apart(np.array([True, False]), np.array([True, True])) == (1, 1, 1)
  nan = np.array([np.nan, 1])
  assert numeric.arrays_apart(nan, nan) == (0, 0, 0) and numeric.arrays_apart(nan, np.ones(2)) == (None, None, 1)
  assert numeric.apart(1, -1) == (2, 2) and numeric.apart(None, 1) == numeric.apart(10**400, 1) == (None, None)


def test_the_command(trained):
  done = command_line.run('compare', str(trained['a']), str(trained['again']))
  assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith('equal: 5 rows, 2 checkpoints'), done.stderr
  done = command_line.run('compare', str(trained['a']), str(trained['faster']), '--json', '--tolerance=1e-6')
  told = json.loads(done.stdout)
  assert done.returncode == 1 and not told['equal'] and told['step'] == 2 and done.stderr == ''
  assert told['logs']['first'][0]['column'] == 'loss' and told['checkpoints']['first']['tensors'][0]['relative'] > 0
