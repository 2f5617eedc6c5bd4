"""Which tests run when: turns, rooms that changed, and what touches JAX."""

import pathlib
import types

import in_turn
import pytest
import touches_jax

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize('nodeid', [f'tests/faults/test_damage.py::test_{i}[a-b]' for i in range(20)])
def test_in_five_commits_each_has_one_turn(nodeid):
  for first in (0, 7, 1234):
    assert sum(in_turn.has_turn(nodeid, count) for count in range(first, first + 5)) == 1


def test_turns_are_spread():
  turns = [sum(in_turn.has_turn(f'tests/test_a.py::test_{i}', count) for i in range(500)) for count in range(5)]
  assert sum(turns) == 500 and min(turns) > 70


@pytest.mark.parametrize('nodeid, changed, chosen', [
    ('tests/rehearsal/test_compiler.py::test_x', 'vit_jax/rehearsal/hlo.py', True),
    ('tests/rehearsal/test_compiler.py::test_x', 'tests/rehearsal/conftest.py', True),
    ('tests/rehearsal/test_compiler.py::test_x', 'vit_jax/rehearsal_other.py', False),
    ('tests/rehearsal/test_compiler.py::test_x', 'vit_jax/sweeps/spec.py', False),
    ('tests/rehearsal/test_compiler.py::test_x', 'README.md', False),
    ('tests/faults/test_damage.py::test_x', 'vit_jax/survival/lock.py', True),
    ('tests/faults/test_damage.py::test_x', 'vit_jax/checkpoint.py', True),
    ('tests/faults/test_damage.py::test_x', 'vit_jax/layers/mlp.py', False),
    ('tests/test_sweep.py::test_x', 'vit_jax/sweeps/pack.py', True),
    ('tests/test_sweep.py::test_x', 'tests/test_sweep.py', True),
    ('tests/test_sweep.py::test_x', 'tests/test_main.py', False),
    ('tests/test_notebooks.py::test_x', 'docs/notebooks/first_law.ipynb', True),
    ('tests/test_notebooks.py::test_x', 'docs/laws.md', False),
    ('tests/test_main.py::test_x[a/b]', 'vit_jax/main.py', True)])
def test_a_changed_room_has_its_slow_tests_run(nodeid, changed, chosen):
  assert in_turn.is_of_changed(nodeid, ['docs/other.md', changed]) == chosen


def test_where_git_does_not_answer_all_have_their_turn():
  assert in_turn.choose_now('no-such-commit')('tests/test_main.py::test_x')


def test_the_rooms_that_are_named_exist():
  for rooms in (*in_turn.ROOMS_OF_FILES.values(), *in_turn.ROOMS_OF_FOLDERS.values()):
    for room in rooms:
      assert (ROOT / 'vit_jax' / room).exists() or (ROOT / 'vit_jax' / f'{room}.py').exists(), room
  for file in in_turn.ROOMS_OF_FILES:
    assert (ROOT / 'tests' / file).exists(), file


def _left(slow, expression='', args=('tests',)):
  """The tests that deselect leaves, of one that is quick and fifty that are slow."""
  item = lambda name, marks: types.SimpleNamespace(
      nodeid=f'tests/nowhere/test_a.py::{name}', get_closest_marker=marks.get)
  items = [item('quick', {}), *(item(f'slow{i}', {'slow': True}) for i in range(50))]
  gone = []
  config = types.SimpleNamespace(
      getoption={'slow': slow, 'since': 'HEAD'}.get, args=args, option=types.SimpleNamespace(markexpr=expression),
      hook=types.SimpleNamespace(pytest_deselected=lambda items: gone.extend(items)))
  in_turn.deselect(config, items)
  assert len(items) + len(gone) == 51
  return [item.nodeid.partition('::')[2] for item in items]


def test_the_options():
  """-m chooses afterwards, so that one that names the slow must leave them all; so does a test that is named."""
  assert _left('none') == _left('none', 'not slow') == _left('none', 'jax') == ['quick']
  assert len(_left('all')) == len(_left('none', 'slow')) == len(_left('turn', 'slow and jax')) == 51
  assert len(_left('none', args=['tests/nowhere/test_a.py::slow1'])) == 51


def test_a_turn_is_a_part(monkeypatch):
  monkeypatch.setattr(in_turn, '_git', lambda word, *_: {'rev-list': '12', 'diff': 'README.md'}[word])
  left = _left('turn')
  assert left[0] == 'quick' and 3 < len(left) < 20
  monkeypatch.setattr(in_turn, '_git', lambda word, *_: {'rev-list': '12', 'diff': 'vit_jax/nowhere/a.py'}[word])
  assert len(_left('turn')) == 51


@pytest.mark.parametrize('file, touches', [
    ('tests/models/test_vit.py', True),  # imports it
    ('tests/training/test_branch.py', True),  # through vit_jax.training
    ('tests/test_predict.py', True), ('tests/sweeps/test_spec.py', False),
    ('tests/scaling/test_estimate.py', False), ('tests/data/test_order.py', False)])
def test_what_touches_jax_is_found(file, touches):
  assert touches_jax.touches_jax(ROOT / file) == touches


def test_an_import_in_a_function_or_by_a_string_counts(tmp_path):
  for text, touches in (('import os', False), ('def f():\n  import jax.numpy', True), ('x = "vit_jax.main"', True),
                        ('from flax import nnx', True), ('import jaxtyping', False), ('run("convert")', True)):
    path = tmp_path / f'case{len(text)}.py'
    path.write_text(text)
    assert touches_jax.touches_jax(path) == touches, text
