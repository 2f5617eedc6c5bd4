"""The three lights of a law, each with its reason: it predicts, its intervals hold, the data identify it."""

import numpy as np
from scipy import stats

from vit_jax.scaling.bootstrap import LEVEL

GREEN, AMBER, RED = 'green', 'amber', 'red'
FEW_HELD = 8  # intervals half as wide as they should be pass with fewer runs more often than one time in twenty
REJECTED = 0.05  # p of the binomial test
ONE_SIDED = 0.01  # p of the sign test
MISSED = 1.5  # forecasts of the law's own larger runs, in units of what their intervals expect


def holdout_tests(rows: list[dict], predictions: np.ndarray | None, clusters: np.ndarray) -> dict:
  """Whether held-out points are in their intervals as often as they should be, and on both sides of the law.

  Points of one run or lineage may all be off together. So k such clusters count as k points with the same shares.

  Args:
    rows: {measured, predicted, inside} of n points.
    predictions: [S, n], values of new runs, of one refit each; they have the law's error in common.
    clusters: [n], the run or lineage of each point.

  Returns:
    {independent, inside, expected, p_inside, too_high, p_sign, p_sign_shared}: independent is the number of clusters;
    p_inside is the binomial probability of so few inside; p_sign that of so uneven signs if each cluster were on its
    own; p_sign_shared that with the common error.
  """
  measured, predicted = (np.array([row[key] for row in rows]) for key in ('measured', 'predicted'))
  high, n, k = int(np.sum(predicted > measured)), len(rows), len(np.unique(clusters))
  uneven = abs(2 * high - n) * k // n  # rounded to the side of no difference, as below
  out = {'independent': k, 'too_high': high, 'p_sign': float(stats.binomtest((k + uneven) // 2, k, 0.5).pvalue)}
  if predictions is None:
    return out
  inside, simulated = sum(row['inside'] for row in rows), (predicted > predictions).sum(1)
  both = min(np.mean(simulated >= high), np.mean(simulated <= high))
  return out | {'inside': inside, 'expected': LEVEL * n,
                'p_inside': float(stats.binom.cdf(-(-inside * k // n), k, LEVEL)),
                'p_sign_shared': float(min(1.0, 2 * both))}


def lights(law: dict, curvature, rollout_z: float | None, differ: list[str]) -> dict[str, dict[str, str]]:
  """{light: {light: green, amber or red, reason}} for predictive, calibrated and identified.

  Args:
    law: the contents of law.json, with holdout, ci95 and not_identified.
    curvature: the test of curvature (see `checks`), or None.
    rollout_z: the error of the law's own rollout in units of what its intervals expect, or None.
    differ: sentences on pooled columns whose residuals differ.
  """
  found = {'predictive': _predictive(law['holdout']), 'calibrated': _calibrated(law, curvature, rollout_z, differ),
           'identified': _identified(law)}
  return {name: {'light': light, 'reason': reason} for name, (light, reason) in found.items()}


def reds(law: dict, *names: str) -> list[str]:
  """The reasons of the red lights among `names`."""
  return [law['lights'][name]['reason'] for name in names if law['lights'][name]['light'] == RED]


def describe_curvature(test) -> str:
  """A sentence on the curvature that the form misses."""
  (term, size), *_ = test.effects.items()
  return (f'the residuals curve with {term} ({100 * size:+.2g}% over the points; F = {test.f:.3g}, p = {test.p:.1g}): '
          'the form misses it, so extrapolation is biased')


def _predictive(held):
  if not held:
    return AMBER, 'nothing was held out: extrapolation is untested'
  words = f'RMSLE {held["rmsle"]:.2g} on {held["n"]} held-out points, "no change" {held["rmsle_persistence"]:.2g}'
  return (GREEN if held['rmsle'] < held['rmsle_persistence'] else RED), words


def _calibrated(law, curvature, rollout_z, differ):
  held = law['holdout']
  tests = held['tests'] if held and 'inside' in held['tests'] else None
  if tests and (wrong := _rejected(tests, held['n'])):
    return RED, wrong
  if differ:
    return RED, differ[0]
  if not (tests and tests['independent'] >= FEW_HELD):  # a hold-out that passes is stronger evidence than the residuals
    if curvature is not None and curvature.significant:
      return RED, describe_curvature(curvature)
    if rollout_z is not None and rollout_z > MISSED:
      return RED, (f"forecasts of these runs by fits to the smaller ones miss by {rollout_z:.2g} times what their "
                   'intervals expect')
  if tests:
    found = f'{tests["inside"]} of {_points(held["n"], tests)} inside their 95% intervals'
    if tests['independent'] >= FEW_HELD:
      return GREEN, found
    return AMBER, f'{found}; intervals half as wide could pass with so few'
  return AMBER, 'nothing was held out' if law['ci95'] else 'no intervals'


def _points(n, tests):
  """'12 held-out points', and of how many runs or lineages where these are fewer."""
  few = tests['independent'] < n
  return f'{n} held-out points' + (f' ({tests["independent"]} independent runs or lineages)' if few else '')


def _rejected(tests, n):
  """What the tests on the hold-out reject; '' for nothing."""
  high, low = tests['too_high'], n - tests['too_high']
  side = f'{max(high, low)} of {n} predictions too {"high" if high > low else "low"} (p = {tests["p_sign"]:.1g})'
  one_sided = tests['p_sign'] < ONE_SIDED
  if tests['p_inside'] < REJECTED:
    found = f'{tests["inside"]} of {_points(n, tests)} inside where {round(tests["expected"])} are expected'
    return f'intervals too narrow: {found} (p = {tests["p_inside"]:.1g})' + (f'; {side}' if one_sided else '')
  if one_sided and tests['p_sign_shared'] < REJECTED:
    return f'predictions are one-sided: {side}, more than their intervals allow for'
  return ''


def _identified(law):
  if law['ci95'] is None:
    return AMBER, 'no intervals'
  names = law['not_identified']
  if names:
    return RED, f'{" and ".join(names)} not identified'
  return GREEN, f'{", ".join(law["diagnostics"]["exponents"])} identified'
