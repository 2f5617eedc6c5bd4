import dataclasses
import pathlib
from typing import Literal

import pytest

from vit_jax import config, schema
from vit_jax.errors import UserError
from vit_jax.training import config as run_config

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
# A recipe's identity: changes only when what it computes changes. A new option must not move these.
HASHES = {
    'quickstart.py': 'bed66b456c',
    'digits_law.py': '2823ee0259',
    'fashion_mnist.py': 'a866505fc6',
    'ladder.py': 'e20d1d0602',
    'ladder.py:depth=3': '7a12c76bfd',
    'finetune_cifar10.py': 'be44dcf290',
    'finetune_cifar10.py:b32': '1837f18749',
    'finetune_folder.py': '234478dc82',
    'vit_s16.py': 'a5b28943ba',
    'vit_b16.py': '94b0504612',
    'vit_b16.py:runlocal': '9292d20b83',
    'deit_s16.py': 'f2bd093db1',
    'deit_s16.py:distilled': 'd1e688ed2a',
    'swin_t.py': 'f2af59c8d2',
    'convnext_t.py': '31f47ad53b',
    'resnet50.py': '7654695ab7',
    'mixer_s16.py': 'b44a1c505c',
    'mixer_s16.py:b16': 'fad5cea139',
    'mae_digits.py': '96c2b03cd8',
    'mae_b16.py': '963a64e248',
    'mae_b16.py:runlocal': 'b1f912172b',
    'siglip_b16.py': '28fe779b6b',
    'siglip_b16.py:coco': '745a00da52',
    'lit_b16.py': '275f88868b',
    'zero_shot_emoji.py': '6bcaf850a7',
    'caption_s16.py': '8f0135c0dc',
    'caption_s16.py:cappa': '99d1b59ece',
}


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: float = 0.5
  size: tuple[int, int] = (2, 3)


@dataclasses.dataclass(frozen=True)
class Outer:
  name: Literal['a', 'b'] = 'a'
  count: int | None = None
  on: bool = True
  inner: Inner = Inner()
  system: Inner = Inner()


def test_defaults_survive_the_round_trip():
  assert schema.cast(Outer, schema.to_config_dict(Outer)) == Outer()


def test_values_are_cast_to_their_types():
  c = schema.to_config_dict(Outer)
  c.count, c.inner.rate, c.inner.size = 3, 1, 7
  cast = schema.cast(Outer, c)
  assert cast.count == 3 and cast.inner.rate == 1.0 and isinstance(cast.inner.rate, float)
  assert cast.inner.size == (7, 7)


@pytest.mark.parametrize('values, message', [
    ({'conut': 1}, r"config\.conut: no such key; did you mean 'count'\?"),
    ({'inner': {'rat': 1}}, r"config\.inner\.rat: no such key; did you mean 'rate'\?"),
    ({'name': 'c'}, r"config\.name: expected one of 'a', 'b', got 'c'"),
    ({'count': 1.5}, r'config\.count: expected int, got 1\.5'),
    ({'count': True}, r'config\.count: expected int, got True'),
    ({'on': 1}, r'config\.on: expected bool, got 1'),
    ({'on': None}, r'config\.on: expected bool, got None'),
    ({'inner': {'size': (1, 2, 3)}}, r'config\.inner\.size: expected tuple\[int, int\], got \(1, 2, 3\)'),
])
def test_what_does_not_fit_is_named(values, message):
  with pytest.raises(UserError, match=message):
    schema.cast(Outer, values)


def test_hash_leaves_out_defaults_and_system():
  base = schema.config_hash(Outer())
  assert schema.config_hash(Outer(system=Inner(rate=9.0))) == base
  assert schema.config_hash(Outer(inner=Inner(rate=0.5))) == base
  assert schema.config_hash(Outer(inner=Inner(rate=0.6))) != base

  more = dataclasses.make_dataclass('Outer', [('new_option', int, 0)], bases=(Outer,), frozen=True)
  assert schema.config_hash(more(count=3)) == schema.config_hash(Outer(count=3))


def test_family_counts_though_it_is_the_default():
  assert schema.changed(run_config.cast(config.defaults('vit')))['family'] == 'vit'


def test_differing_keys_are_named():
  a, b = (schema.plain(Outer(inner=Inner(rate=r))) for r in (0.1, 0.2))
  assert schema.differing_keys(a, b) == ['inner.rate: 0.1, there 0.2']


@pytest.mark.parametrize('recipe', HASHES)
def test_recipes_keep_their_identity(recipe):
  loaded = config.load_recipe(str(CONFIGS / recipe))
  assert schema.config_hash(run_config.cast(loaded)) == HASHES[recipe]


def test_every_recipe_has_a_golden_hash():
  assert {path.name for path in CONFIGS.glob('*.py')} == {name.partition(':')[0] for name in HASHES}


def test_a_misspelt_key_in_a_recipe_names_the_file(tmp_path):
  recipe = tmp_path / 'mine.py'
  recipe.write_text('from vit_jax import config\ndef get_config():\n  c = config.defaults()\n  c.model.widht = 3\n'
                    '  return c\n')
  with pytest.raises(UserError, match=r'mine\.py.*widht'):
    config.load_recipe(str(recipe))
