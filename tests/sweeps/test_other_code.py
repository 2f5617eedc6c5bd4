"""A finished run of other code than today's is marked wherever a sweep shows it."""

import io

import pytest

from vit_jax import provenance, records
from vit_jax.console import Console
from vit_jax.sweeps import display, folders, jobs
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun

RUNS = tuple(PlannedRun(name, name, ('--config=a.py',), 5, 100, 1000, 1000) for name in ('new', 'old', 'older', 'mine'))
PLAN = Plan(RUNS, (), (), 'cpu', 1e9)


@pytest.fixture(name='sweep')
def _sweep(tmp_path):
  plug_in = tmp_path / 'mine.py'
  plug_in.write_text('x = 1\n')
  by = {'new': {'code': provenance.code()}, 'old': {'code': 'abc'}, 'older': {},
        'mine': {'code': provenance.code([plug_in]), 'plug_ins': [str(plug_in)]}}
  for name, code in by.items():
    records.write_run(tmp_path / f'{name}-{name}', {'status': 'finished', 'results': {'steps': 100}} | code)
  return tmp_path


def _plan_shows(sweep):
  out, made = io.StringIO(), jobs.make(PLAN, sweep)
  shown = display.Display(Console(file=out, width=300))
  shown.plan(PLAN, made, jobs.seconds(made, PLAN, sweep, 1))
  shown.totals(PLAN, made, [], 0.0, 1)
  return out.getvalue()


def test_the_plan_marks_what_is_by_other_code(sweep):
  text = _plan_shows(sweep)
  assert text.count('finished (other code)') == 1
  assert "note: 1 of 4 finished runs are by other code than today's" in text


def test_a_plug_in_that_changed_is_other_code(sweep):
  (sweep / 'mine.py').write_text('x = 1  # a comment\n')
  assert not folders.by_other_code(sweep / 'mine-mine')
  (sweep / 'mine.py').write_text('x = 2\n')
  assert folders.by_other_code(sweep / 'mine-mine')
  assert _plan_shows(sweep).count('finished (other code)') == 2
