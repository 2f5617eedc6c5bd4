"""What the page answers on its own agrees with what the command says."""

import functools

import numpy as np
import pytest

from vit_jax.scaling import analysis, payload, what_if
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import load


@pytest.fixture(name='found', scope='module')
def _found(tmp_path_factory):
  """A law of N and D, with FLOPs, a text column, a setting, and a run's own number."""
  random, lines = np.random.default_rng(0), ['params,examples,flops,loss,data,width,own']
  for i, n in enumerate(np.geomspace(1e5, 1e7, 5)):
    for j, d in enumerate(np.geomspace(1e6, 1e8, 4)):
      loss = (0.5 + 40 / n ** 0.4 + 60 / d ** 0.35) * np.exp(0.003 * random.standard_normal())
      lines.append(f'{n},{d},{6 * n * d},{loss},web,{2 ** i},{i}.{j}')
  path = tmp_path_factory.mktemp('what_if') / 'points.csv'
  path.write_text('\n'.join(lines) + '\n')
  points = load([path], need=['params', 'examples'])
  return analysis.analyse(points, analysis.Settings('chinchilla', Objective(), 100))


def _spline(values, places):
  """The interpolation of law_answers.js: Catmull-Rom along each axis, with ends of the second degree."""
  if not places:
    return values
  i = int(np.clip(places[0], 0, len(values) - 2))
  t, at = places[0] - i, lambda k: _spline(values[k], places[1:])
  b, c = at(i), at(i + 1)
  a = at(i - 1) if i else 3 * b - 3 * c + at(i + 2)
  d = at(i + 2) if i < len(values) - 2 else 3 * c - 3 * b + a
  return b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


def test_between_the_nodes_of_the_grid_the_error_is_small(found):
  grid, random = what_if.grid(found), np.random.default_rng(1)
  axes, spline = grid['axes'], {}
  for name, values in grid['values'].items():
    spline[name] = functools.partial(_spline, np.log(values).reshape([axis['nodes'] for axis in axes]))
  for _ in range(200):
    shares = random.uniform(size=2)
    at = {a['name']: np.array([a['low'] * (a['high'] / a['low']) ** s]) for a, s in zip(axes, shares)}
    places = [s * (a['nodes'] - 1) for a, s in zip(axes, shares)]
    answer = {name: np.exp(of(places)) for name, of in spline.items()}
    assert answer['predicted'] == pytest.approx(found.fit.predict(at)[0], rel=5e-4)
    law, _ = found.boot.bands(at)
    assert [answer['law_low'], answer['law_high']] == pytest.approx(law[:, 0], rel=3e-3)
    assert answer['run_low'] < answer['predicted'] < answer['run_high']
  assert grid['cost'] == {'k': pytest.approx(6.0), 'q': 1.0}


def test_the_curve_of_the_optimum_is_that_of_law_json(found):
  best, rows = what_if.optimum(found), found.law['compute_optimal']['rows']
  least, most = (f(found.points.columns['flops']) for f in (min, max))
  assert best['flops'][0] == pytest.approx(min(least, rows[0]['flops']))
  assert best['flops'][-1] == pytest.approx(rows[-1]['flops']) and rows[-1]['flops'] > most
  for name in ('params', 'examples', 'loss'):
    assert best[name][-1] == pytest.approx(rows[-1][name])
    assert [edge[-1] for edge in best[f'{name}_ci95']] == pytest.approx(rows[-1][f'{name}_ci95'])


def test_filters_are_the_columns_that_split_the_points(found):
  filters = what_if.filters(found.points)
  assert set(filters) == {'width'}, 'data is the same in all, and `own` is different in all'
  assert filters['width'] == [str(2 ** i) for i in range(5) for _ in range(4)]


def test_groups_without_flops_are_compared_over_x(tmp_path):
  lines = [f'{group},{x},{1 + scale * x ** -0.3}' for group, scale in (('a', 30), ('b', 20))
           for x in np.geomspace(1e3, 1e6, 8)]
  (tmp_path / 'points.csv').write_text('\n'.join(['group,x,loss', *lines]) + '\n')
  points = load([tmp_path / 'points.csv'], x='x', group='group')
  groups = analysis.analyse_groups(analysis.split_groups(points, 'group'),
                                   analysis.Settings('power_offset', Objective(), 0))
  assert [group['together']['by'] for group in payload.payloads(groups)] == ['x', 'x']
