"""A printed config says what each key means, and as a recipe it is the same run."""

import dataclasses
from typing import Literal

import pytest

from vit_jax import models, printed_config, recipe, schema
from vit_jax.training import config as run_config


@dataclasses.dataclass(frozen=True)
class Base:
  size: int = 3  # pixels
  # Above it,
  # over two lines.
  rate: float = 0.5

  text: str = '# not a comment'


@dataclasses.dataclass(frozen=True)
class Inherits(Base):
  kind: Literal['a1', 'b2'] = 'a1'  # a1: the first
  size: int = 4  # of the heir


def test_comments_are_those_of_the_source():
  assert printed_config.comments(Inherits) == {
      'size': 'of the heir', 'rate': 'Above it, over two lines.', 'kind': 'a1: the first'}


def test_a_tree_has_values_defaults_and_choices():
  lines = printed_config.tree(Inherits(rate=0.25)).splitlines()
  assert [line.partition(' = ')[0] for line in lines] == ['size', 'rate', 'text', 'kind']
  said = {line.split(' = ')[0]: line for line in lines}
  assert said['rate'].endswith('# [default: 0.5] Above it, over two lines.')
  assert said['kind'].endswith('# a1: the first; a1 | b2')


@pytest.mark.parametrize('name', ['quickstart', 'deit_s16:distilled', 'finetune_folder', 'resnet50', 'swin_t'])
def test_a_printed_recipe_is_the_same_run(name, tmp_path):
  config = run_config.cast(recipe.load_recipe(name))
  path = tmp_path / 'again.py'
  path.write_text(printed_config.recipe(config, 'Again.'))
  again = run_config.cast(recipe.load_recipe(path))
  assert again == config and run_config.run_hash(again) == run_config.run_hash(config)
  assert schema.given(again.model) == schema.given(config.model)  # what is not given comes from weights
  assert all(len(line) <= 120 for line in path.read_text().splitlines() if 'system.mesh.rules' not in line)


@pytest.mark.parametrize('family', models.FAMILIES)
def test_a_recipe_with_all_its_comments_as_code_is_the_same_run(family, tmp_path):
  config = run_config.cast(run_config.defaults(family))
  path = tmp_path / 'all.py'
  path.write_text(printed_config.recipe(config, 'All.').replace('  # c.', '  c.'))
  assert run_config.cast(recipe.load_recipe(path)) == config


def test_changes_are_listed_with_their_meaning():
  before, now = Inherits(), Inherits(rate=0.25, text='x')
  assert printed_config.changes(now, before) == ["rate: 0.5 -> 0.25  # Above it, over two lines.",
                                                 "text: '# not a comment' -> 'x'"]
  assert printed_config.changes(now, now) == []
