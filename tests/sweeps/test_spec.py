import math

import numpy as np
import pytest

from vit_jax import sweeps
from vit_jax.errors import UserError
from vit_jax.sweeps import spec

A, B, C = (sweeps.axis(key, *values) for key, values in (('a', (1, 2, 3)), ('b', (4, 5)), ('c', (6, 7))))


def test_product_has_every_combination_once_and_is_associative():
  whole = sweeps.product(A, B, C)
  assert len(whole) == len(A) * len(B) * len(C) == len({tuple(sorted(run.items())) for run in whole})
  assert whole == sweeps.product(sweeps.product(A, B), C) == sweeps.product(A, sweeps.product(B, C))
  assert sweeps.product(A) == A and sweeps.product() == [{}]


def test_product_distributes_over_chain():
  assert sweeps.product(sweeps.chain(A, B), C) == sweeps.chain(sweeps.product(A, C), sweeps.product(B, C))


def test_zip_combines_choices_by_position():
  assert sweeps.zip(B, C) == [{'b': 4, 'c': 6}, {'b': 5, 'c': 7}]
  with pytest.raises(UserError, match='lists of 3, 2 choices'):
    sweeps.zip(A, B)


def test_choices_that_contradict_each_other_are_refused():
  assert sweeps.product(A[:1], [{'a': 1, 'b': 2}]) == [{'a': 1, 'b': 2}]
  with pytest.raises(UserError, match='product: a is both 1 and 9'):
    sweeps.product(A[:1], [{'a': 9}])


def test_seeds_branches_and_budgets():
  assert sweeps.seeds(2, first=3) == [{'seed': 3}, {'seed': 4}]
  assert [run['train.steps'] for run in sweeps.branches([10, 20])] == [10, 20]
  assert {run['schedule.name'] for run in sweeps.branches([10, 20])} == {'wsd'}
  grid = sweeps.isoflop([1e9, 1e10], A)
  assert [(run['train.flops'], run['a']) for run in grid] == [(f, a) for f in (1e9, 1e10) for a in (1, 2, 3)]


@pytest.mark.parametrize('choices, message', [
    (['model.width'], "expected a dict of config keys, got 'model.width'"),
    ([{'a': math.nan}], 'a=nan'),
    ([{'a': {}}], 'a={}'),
])
def test_values_that_no_flag_can_hold_are_refused(choices, message):
  with pytest.raises(UserError, match=message):
    sweeps.product(choices)


def test_numbers_of_numpy_are_numbers():
  assert sweeps.product(sweeps.axis('a', np.int64(3), np.float32(0.5))) == [{'a': 3}, {'a': 0.5}]


@pytest.mark.parametrize('text, message', [
    ('', r'mine\.py: it has no get_sweep\(\)'),
    ('get_sweep = lambda: 3', 'get_sweep.. returned int, expected a vit_jax.sweeps.Sweep'),
    ('from vit_jax.sweeps import Sweep\nget_sweep = lambda: Sweep("x.py", [])', 'the sweep has no runs'),
])
def test_a_file_that_is_not_a_sweep_is_refused(tmp_path, text, message):
  (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(UserError, match=message):
    spec.load(f'{tmp_path}/mine.py')
  with pytest.raises(UserError, match="no file .* did you mean 'mine.py'"):
    spec.load(f'{tmp_path}/mien.py')


def test_the_argument_reaches_the_file(tmp_path):
  (tmp_path / 'mine.py').write_text(
      'from vit_jax.sweeps import Sweep, seeds\nARGS = str\n'
      'def get_sweep(arg="2"):\n  return Sweep("x.py", seeds(int(arg)))')
  assert len(spec.load(f'{tmp_path}/mine.py').runs) == 2 and len(spec.load(f'{tmp_path}/mine.py:5').runs) == 5
