"""Recipes, sweep files and run folders: what is wrong is said, cheap things before dear ones."""

import pytest

from vit_jax import recipe, records, schema
from vit_jax.errors import UserError
from vit_jax.sweeps import spec, sweep_plan
from vit_jax.training import config as run_config
from vit_jax.training import run, run_folder

BEGIN = 'import numpy as np\nfrom vit_jax import config\ndef get_config('
TINY = """c = config.defaults()
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 4, 16, 1, 16, 2
  c.data.batch_size, c.train.steps = 16, 4
  """


def _recipe(tmp_path, body, arguments='', after=''):
  path = tmp_path / 'mine.py'
  path.write_text(f'{BEGIN}{arguments}):\n  {TINY}{body}\n{after}')
  return str(path)


@pytest.mark.parametrize('file, message', [
    ('configs/deit_s16.py:distiled', "no argument 'distiled'; did you mean 'distilled'"),
    ('configs/vit_b16.py:RUNLOCAL', "no argument 'RUNLOCAL'; did you mean 'runlocal'"),
    ('configs/finetune_cifar10.py:b64', "no argument 'b64'; did you mean 'b"),
    ('configs/quickstart.py:small', 'takes no argument, so leave out :small'),
])
def test_an_argument_that_a_recipe_does_not_declare_is_refused(file, message):
  with pytest.raises(UserError, match=message):
    recipe.load_recipe(file)


@pytest.mark.parametrize('file, message', [
    ('experiments/imagenet_law/sweep.py:smal', "no argument 'smal'; did you mean 'small'"),
    ('experiments/fashion_mnist_law/sweep.py:laptp', "no argument 'laptp'; did you mean 'laptop'"),
    ('experiments/cnn_vs_vit/sweep.py', 'needs an argument, FILE.py:ARG; known: cnn, cnn-rates'),
])
def test_an_argument_that_a_sweep_does_not_declare_is_refused(file, message):
  with pytest.raises(UserError, match=message):
    spec.load(file)


@pytest.mark.parametrize('body, arguments, after, argument, message', [
    ('pass', '', '', '', r'get_config\(\) returned NoneType, expected .*without `return`'),
    ('return c.model', '', '', ':x', 'takes no argument'),
    ('return c', 'arg=""', '', ':x', r"no argument 'x'; the file declares none: write ARGS = .* or ARGS = str"),
    ('return 1 / 0', '', '', '', r'mine\.py, line 7: ZeroDivisionError: division by zero'),
    ('return {}[1]', '', '', '', r'mine\.py, line 7: KeyError: 1'),
    ('c.model.widht = 3', '', '', '', r"mine\.py, line 7: AttributeError: no such key 'widht'; did you mean 'width'\?"),
    ('return c', '', 'import nothing_of_that_name', '', r'mine\.py, line 8: ModuleNotFoundError'),
    ('return c', '', 'def (', '', r'mine\.py, line 8: SyntaxError'),
])
def test_what_goes_wrong_in_a_recipe_names_its_line(tmp_path, body, arguments, after, argument, message):
  with pytest.raises(UserError, match=message):
    recipe.load_recipe(_recipe(tmp_path, body, arguments, after) + argument)


def test_any_text_where_it_is_declared(tmp_path):
  loaded = recipe.load_recipe(_recipe(tmp_path, 'c.seed = int(arg)\n  return c', 'arg', 'ARGS = str') + ':7')
  assert loaded.seed == 7


def test_numbers_of_numpy_and_references_are_numbers(tmp_path):
  body = ('c.model.width = np.int64(32)\n  c.model.mlp_dim = c.model.get_ref("width") * np.int64(2)\n'
          '  c.optimizer.learning_rate, c.data.image_size = np.float32(0.5), np.array([8, 8])\n  return c')
  cast = run_config.cast(recipe.load_recipe(_recipe(tmp_path, body)))
  assert (cast.model.width, cast.model.mlp_dim, cast.optimizer.learning_rate) == (32, 64, 0.5)
  assert cast.data.image_size == (8, 8) and all(type(n) is int for n in (cast.model.width, *cast.data.image_size))
  schema.plain(cast)


def test_none_is_a_value_of_a_command_and_of_a_sweep(tmp_path):
  file = _recipe(tmp_path, 'return c')
  parse = lambda *flags: sweep_plan.parse([f'--config={file}', *(f'--config.{flag}' for flag in flags)])
  assert parse('optimizer.clip_norm=None').optimizer.clip_norm is None
  assert parse('data.data_dir=None', 'evaluate.every=None').data.data_dir is None
  assert parse('optimizer.clip_norm=None', 'optimizer.clip_norm=2').optimizer.clip_norm == 2
  with pytest.raises(UserError, match='config.model.width: expected int, got None'):
    parse('model.width=None')
  sweep = tmp_path / 'sweep.py'
  sweep.write_text(f'from vit_jax.sweeps import *\ndef get_sweep():\n  return Sweep({file!r}, '
                   'axis("optimizer.clip_norm", 2.0, None))\n')
  configs = sweep_plan.read(str(sweep))[0]
  assert [config.optimizer.clip_norm for _, config in configs.values()] == [2.0, None]


def test_an_old_key_goes_on_with_a_note(tmp_path, capsys):
  schema._note_renamed.cache_clear()
  file = _recipe(tmp_path, 'c.system.steps_a_call = 8\n  return c')
  assert run_config.cast(recipe.load_recipe(file)).system.steps_per_call == 8  # in a recipe
  as_a_flag = sweep_plan.parse([f'--config={file}', '--config.system.steps_a_call=3'])
  assert as_a_flag.system.steps_per_call == 3
  assert run_config.cast({'system': {'steps_a_call': 5}}).system.steps_per_call == 5  # in the run.json of an older run
  assert capsys.readouterr().err.count('steps_a_call is called steps_per_call now') == 1


def test_sweeps_over_repeated_augmentation_are_planned(tmp_path):
  file = _recipe(tmp_path, 'c.data.augment.repeats = 2\n  return c')
  sweep = tmp_path / 'sweep.py'
  sweep.write_text(f'from vit_jax.sweeps import *\ndef get_sweep():\n  return Sweep({file!r}, seeds(2))\n')
  assert len(sweep_plan.make(str(sweep)).runs) == 2


@pytest.mark.parametrize('changes, message', [
    ({'system.mesh.data': 3}, r'system\.mesh'), ({'optimizer.clip_norm': -1.0}, r'optimizer\.clip_norm'),
    ({'data.source': 'folder:nowhere'}, 'nowhere'), ({}, 'absent: no such'),
])
def test_weights_are_read_last(tmp_path, changes, message):
  c = recipe.load_recipe(_recipe(tmp_path, 'c.pretrained.path = "absent"\n  return c'))
  c.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=message):
    run.prepare(run_config.cast(c))


def test_a_folder_is_looked_at_before_weights(tmp_path):
  c = recipe.load_recipe(_recipe(tmp_path, 'c.pretrained.path = "absent"\n  return c'))
  config = run_config.cast(c)
  records.write_run(tmp_path / 'run', {'config': schema.plain(config), 'config_hash': '0', 'status': 'finished'})
  run_folder.check(config, tmp_path / 'run')
  c.optimizer.learning_rate, c.model.width = 0.5, 24  # the width may come from the weights
  with pytest.raises(UserError, match=r'holds another run \(0\)\. Here optimizer\.learning_rate: 0\.5, there 0\.001\.'):
    run_folder.check(run_config.cast(c), tmp_path / 'run')


@pytest.mark.parametrize('workdir, message', [
    ('x' * 300, 'a name of 300 bytes; must be at most 255'),
    ('/'.join(['x' * 200] * 30), 'a path of .* bytes; must be at most 3796'),
    ('file/run', 'is not a folder'),
    ('nowhere://bucket/run', 'kept on disks and in Cloud Storage, not in nowhere://; must be a local folder or gs://'),
    ('s3://bucket/run', r'--workdir=s3://bucket/run: checkpoints are kept on disks and in Cloud Storage, not in s3://'),
    ('', 'must be the path of a folder'),
])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, workdir, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=message):
    run_folder.check(run_config.cast({'family': 'vit'}), workdir)
