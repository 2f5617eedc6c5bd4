"""The automatic choice of a form: it finds the form that generated the data, without looking at held-out points."""

import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.scaling import analysis, select
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

X = np.geomspace(1e3, 1e7, 16)
LSQ = Objective('log_lsq')


def points(y, noise=0.003, **columns):
  columns = columns or {'x': X}
  y = y * np.exp(noise * np.random.default_rng(0).standard_normal(len(y)))
  rows = [{'run': str(i)} for i in range(len(y))]
  return Points('loss', 'examples' if 'x' in columns else None, y, columns, [r['run'] for r in rows], np.arange(len(y)),
                rows, {})


def test_a_power_law_is_recognized():
  chosen = select.choose(points(5 * X ** -0.2), select.ONE_INPUT, LSQ)
  assert chosen.best.form == 'power'


def test_an_irreducible_part_is_recognized():
  chosen = select.choose(points(0.5 + 30 * X ** -0.4), select.ONE_INPUT, LSQ)
  assert chosen.best.form != 'power'
  power = [c for c in chosen.candidates if c.form == 'power']
  assert min(c.score for c in power) > 1.5 * chosen.best.score


def test_small_sizes_that_do_not_follow_are_cut_off():
  y = 5 * X ** -0.2
  y[:4] *= [1.6, 1.4, 1.25, 1.1]
  chosen = select.choose(points(y, 0.001), ('power',), LSQ)
  assert chosen.best.cutoff >= X[4]


def test_the_hold_out_never_enters_the_choice():
  """Whatever the values of held-out points, form, cut-off and coefficients stay the same."""
  y, laws = 0.5 + 30 * X ** -0.4, []
  for factor in (1.0, 7.0):
    changed = np.where(np.arange(16) >= 13, factor, 1.0) * y
    settings = analysis.Settings('auto', LSQ, replicates=0, holdout='largest:3')
    laws.append(analysis.analyse(points(changed), settings).law)
  assert laws[0]['coefficients'] == laws[1]['coefficients'] and laws[0]['selection'] == laws[1]['selection']
  assert laws[0]['holdout']['rmsle'] < 0.05 < laws[1]['holdout']['rmsle']


def test_candidates_follow_the_columns():
  n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e5, 1e8, 5), np.geomspace(1e6, 1e9, 5)))
  y = 1 + 100 * n ** -0.3 + 100 * d ** -0.3
  assert select.candidate_forms(points(y, params=n, examples=d)) == ('chinchilla',)  # none that assumes N*
  repeated = points(y, params=n, examples=d, unique_examples=np.where(d > 1e7, 1e7, 1e6))
  assert 'data_constrained' in select.candidate_forms(repeated)
  with pytest.raises(UserError, match='choose an input with --x'):
    select.candidate_forms(points(y, params=n))


def test_too_few_sizes_are_refused():
  few = points(5 * X ** -0.2).take(np.arange(4))
  with pytest.raises(UserError, match='at least 5 distinct values of examples, got'):
    select.choose(few, select.ONE_INPUT, LSQ)
