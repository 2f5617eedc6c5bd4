"""What a recipe or a flag sets of a model wins over the weights, also a value that is the default."""

import copy
import dataclasses
import pickle
from types import SimpleNamespace

import jax
import pytest

from vit_jax import config, recipe, schema
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import bundle
from vit_jax.interop.weights import Weights
from vit_jax.models import FAMILIES, PureModel
from vit_jax.sweeps import sweep_plan
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training.display import _start
from vit_jax.transfer import pretrained

EVERY = [(family, field) for family in FAMILIES for field in dataclasses.fields(FAMILIES[family].config)]
ELSEWHERE = 'what the weights have'


def _recipe(folder, body, family='vit'):
  file = folder / 'recipe.py'
  file.write_text(f'import copy\nfrom vit_jax import config\nARGS = str\ndef get_config(arg=""):\n'
                  f'  c = config.defaults({family!r})\n  c.pretrained.path = "weights"\n  {body}\n  return c\n')
  return str(file)


def _by_flags(folder, family, *flags):
  return sweep_plan.parse([f'--config={_recipe(folder, "pass", family)}', *(f'--config.{flag}' for flag in flags)])


@pytest.fixture(name='weights')
def _weights(monkeypatch):
  """Makes weights of a family in which every field of the model has a value that the default is not."""
  def make(family):
    fields = {field.name: ELSEWHERE for field in dataclasses.fields(FAMILIES[family].config)}
    found = SimpleNamespace(family=family, config=FAMILIES[family].config(**fields),
                            preprocessing=Preprocessing((8, 8), 3, (0.5,), (0.5,), 'bilinear', 1.0))
    monkeypatch.setattr(pretrained, 'read', lambda _: (found, 'digest'))
  return make


@pytest.mark.parametrize('family, field', EVERY, ids=lambda value: getattr(value, 'name', value))
def test_a_field_set_to_its_default_is_set(family, field, weights, tmp_path):
  weights(family)
  text = repr(field.default) if isinstance(field.default, tuple) else str(field.default)
  by_flag = _by_flags(tmp_path, family, f'model.{field.name}={text}')
  file = _recipe(tmp_path, f'c.model.{field.name} = {field.default!r}', family)
  by_recipe = run_config.cast(recipe.load_recipe(file))
  for given in (by_flag, by_recipe):
    model = pretrained.resolve(given).model
    assert getattr(model, field.name) == field.default
    others = {other.name: getattr(model, other.name) for other in dataclasses.fields(model) if other.name != field.name}
    of_training = {'dropout', 'drop_path', 'dtype'}
    assert all((value == ELSEWHERE) != (name in of_training) for name, value in others.items())


@pytest.mark.parametrize('body', [
    'c.model.update(dict(pool="cls", patch_size=16))', 'c.update({"model": {"pool": "cls", "patch_size": 16}})',
    'c = copy.deepcopy(c); c.model.pool, c.model.patch_size = "cls", 16',
    'c.model.pool, c.model.patch_size = "cls", 16; c = c.copy_and_resolve_references()',
    'c.update_from_flattened_dict({"model.pool": "cls", "model.patch_size": 16})',
])
def test_however_a_recipe_sets_it(body, weights, tmp_path):
  weights('vit')
  model = pretrained.resolve(run_config.cast(recipe.load_recipe(_recipe(tmp_path, body)))).model
  assert (model.pool, model.patch_size, model.width) == ('cls', 16, ELSEWHERE)


def test_copies_of_a_config_know_what_was_set():
  c = config.defaults('vit')
  c.system.steps_per_call = 0
  for copied in (copy.deepcopy(c), pickle.loads(pickle.dumps(c)), c.copy_and_resolve_references()):
    assert schema.given(run_config.cast(copied).system) == {'steps_per_call'}
    assert not schema.given(run_config.cast(copied).model)
    copied.system.steps_a_call = 3  # by its old name
    assert run_config.cast(copied).system.steps_per_call == 3


def test_a_family_that_is_set_is_refused_for_weights_of_another(weights, tmp_path):
  weights('deit')
  assert pretrained.resolve(_by_flags(tmp_path, 'vit')).family == 'deit'
  with pytest.raises(UserError, match="weights of family 'deit', but family='vit' is set"):
    pretrained.resolve(_by_flags(tmp_path, 'vit', 'family=vit'))
  with pytest.raises(UserError, match=r"weights of family 'deit', but model\.pool is set for family 'vit'"):
    pretrained.resolve(_by_flags(tmp_path, 'vit', 'model.pool=cls'))


@pytest.fixture(name='gap', scope='module')
def _gap(tmp_path_factory):
  """A bundle of a ViT for digits with patches of 8, whose mean is read."""
  c = config.defaults('vit')
  c.model.update(dict(patch_size=8, width=8, depth=1, mlp_dim=8, num_heads=2, pool='gap'))
  model = PureModel('vit', run_config.cast(c).model, (8, 8, 1), 10)
  params, stats = jax.device_get(model.init(jax.random.key(0)))
  folder = tmp_path_factory.mktemp('given') / 'bundle'
  bundle.write(Weights('gap', 'vit', schema.plain(model.config), params, stats,
                               Preprocessing((8, 8), 1, (0.5,), (0.5,), 'bilinear', 1.0)), folder)
  return folder


@pytest.mark.parametrize('flags, message', [
    (('model.pool=cls',), "cls: not in the weights.*The config sets model.pool='cls', the weights have 'gap'"),
    (('model.patch_size=16', 'data.image_size=16'), 'The config sets model.patch_size=16, the weights have 8'),
    (('model.depth=12',), 'The config sets model.depth=12, the weights have 1'),
])
def test_what_does_not_fit_is_refused_with_both_values(gap, flags, message, tmp_path):
  with pytest.raises(UserError, match=f'(?s){message}'):
    run_lib.prepare(_by_flags(tmp_path, 'vit', f'pretrained.path={gap}', 'train.steps=4', *flags))


def test_what_fits_is_used_and_said(gap, tmp_path):
  parse = lambda *flags: _by_flags(tmp_path, 'vit', f'pretrained.path={gap}', 'train.steps=4', *flags)
  run = run_lib.prepare(parse("pretrained.ignore=('cls',)", 'model.pool=cls'))
  assert run.config.model.pool == 'cls' and run.config.model.patch_size == 8
  assert _start(run.pretrained) == f"{gap} (new: cls; model.pool='cls', the weights have 'gap')"
  other = run_lib.prepare(parse())
  assert _start(other.pretrained) == str(gap) and other.config_hash != run.config_hash
