"""Sentences about a law: its verdict, warnings and multipliers."""

import re

import numpy as np
from scipy import stats

from vit_jax.scaling import lights
from vit_jax.scaling.frontier import COST_SPREAD

WIDE = 3.0  # an exponent whose interval spans a larger factor is not identified
FEW_CLUSTERS = 10
_RISES = 0.5  # rank correlation
ROUNDED = 0.01  # residuals above this are more than the rounding of losses


def number(value: float, digits: int = 4) -> str:
  """A number with `digits` significant digits, such as 0.01234, 12.34, 1.234e9 or 1e8."""
  return re.sub(r'e\+?(-?)0*', r'e\1', f'{value:.{digits}g}')


def verdict(law: dict) -> str:
  """One sentence: what is wrong, how well the law predicts, and which coefficients the data do not identify."""
  wrong = lights.reds(law, 'calibrated')
  parts = [*wrong, _describe_holdout(law['holdout'], not wrong) if law['holdout'] else _describe_fit(law)]
  if unidentified := law['not_identified']:
    parts.append(f'{" and ".join(unidentified)} not identified')
  elif law['ci95'] is None:
    parts.append('no intervals')
  return '; '.join(parts)


def not_identified(law: dict) -> list[str]:
  """The coefficients that the data do not identify: an end is at a bound, or the interval spans a factor WIDE."""
  return [name for name in law['coefficients'] if _is_open(name, law)]


def warnings(fit, boot, law, points, cost, settings, noise, curvature) -> list[str]:
  """The warnings about a law, one sentence each."""
  out = [*lights.reds(law, 'calibrated'), *fit.warnings]
  if curvature is not None and curvature.significant and (words := lights.describe_curvature(curvature)) not in out:
    out.append(words)
  out += filter(None, (_describe_rise(fit, law), _describe_outliers(fit, points)))
  out += _of_intervals(boot, law, settings)
  for name in law['not_identified']:
    interval, end = (law['ci95'] or {}).get(name), law['diagnostics']['ends_at_bound'].get(name)
    width = f': its 95% interval is {interval[0]:.3g} to {interval[1]:.3g}' if interval else ''
    out.append(f'{name} is not identified{width}{f", which ends at the {end} bound of the form" if end else ""}')
  if law['compute_optimal']:
    if 'unique_examples' in fit.form.inputs:
      out.append('compute-optimal sizes and losses assume examples that never repeat')
    if cost.assumed:
      out.append(cost.describe())
    elif cost.spread > COST_SPREAD:
      out.append(f'the FLOPs of these points deviate from k N^q D by up to {100 * cost.spread:.2g}%: compute-optimal '
                 'sizes are at least as uncertain')
  if not law['holdout']:
    out.append('no points were held out: extrapolation is untested')
  if noise and fit.objective.log and _is_misfit(fit, noise):
    times = f'{fit.sigma / noise["std_log"]:.2g} times the' if noise['std_log'] else 'more than the'
    out.append(f'the residuals ({_percent(fit.sigma)}) are {times} spread between seeds '
               f'({_percent(noise["std_log"])}): the form misses a systematic effect')
  out += [f'IsoFLOP budget {v["flops"]:.3g}: {v["note"]}' for v in law['isoflop'] if v['note']]
  return list(dict.fromkeys(out))


def _of_intervals(boot, law, settings):
  if settings.replicates and boot is None:
    yield (f'no intervals: {law["bootstrap"]["clusters"]} independent runs or lineages are too few to resample, or '
           'most refits did not converge')
  elif boot is not None and boot.clusters < FEW_CLUSTERS:
    yield f'the intervals rest on {boot.clusters} independent runs or lineages: they are likely too narrow'
  if boot is not None and boot.failed:
    yield f'{boot.failed} of {settings.replicates} refits did not converge and were left out'
  if boot is not None and boot.share < 0.5:
    yield (f'only {100 * boot.share:.0f}% of the resamples select the form {law["form"]}: intervals of predictions '
           'cover all forms, those of coefficients this one alone')


def _describe_rise(fit, law):
  """A sentence on a metric that rises where the law does not; '' if there is none."""
  if len(fit.y) < 5:
    return ''
  rank = lambda a, b: stats.spearmanr(a, b)[0] if np.ptp(a) and np.ptp(b) else 0.0
  risen = {name: rank(column, fit.y) for name, column in fit.columns.items()}
  name = max(risen, key=risen.get)
  if risen[name] < _RISES or rank(fit.predict(fit.columns), fit.y) > _RISES / 2:
    return ''
  return (f'{law["metric"]} rises with {name} (rank correlation {risen[name]:.2f}), and the law does not: if it is '
          f"better the higher it is, fit what is left of its best value, such as --form='1 - (..)'")


def _describe_outliers(fit, points):
  """A sentence that names the points far off the law, the farthest first; '' if there are none."""
  where = np.flatnonzero(fit.outliers)
  if not len(where):
    return ''
  off = np.exp(fit.residuals) - 1 if fit.objective.log else fit.residuals / (fit.y - fit.residuals)
  where = where[np.argsort(-np.abs(off[where]))]
  named = ', '.join(f'{points.runs[i]} ({100 * off[i]:+.3g}%)' for i in where[:5])
  named += ', ...' if len(where) > 5 else ''
  pulled = '' if fit.objective.name == 'log_huber' else '. They pull a least-squares fit; --objective=log_huber resists'
  return (f'{len(where)} of {len(fit.y)} points are far off the law: {named}: diverged, or wrong? Intervals '
          f'of a new run leave them out{pulled}')


def _is_misfit(fit, noise):
  """The F test of the spread of residuals against that between seeds."""
  freedom = len(fit.y) - len(fit.theta), noise['runs'] - noise['sets']
  if not noise['std_log']:  # seeds with equal, rounded losses
    return freedom[1] >= 3 and fit.sigma > ROUNDED
  return fit.sigma > 1.5 * noise['std_log'] and stats.f.sf(
      (fit.sigma / noise['std_log']) ** 2, *map(max, freedom, (1, 1))) < 1e-3


def describe_multiplier(row: dict) -> str:
  """A sentence such as `B reaches loss 0.412 with 0.61x the FLOPs of A (95%: 0.55 to 0.68)`.

  The interval is `(95%: 0.55 or more)` if some refits never reach the loss.
  """
  a, b, what = row['a'], row['b'], {'flops': 'FLOPs'}.get(row['of'], row['of'])
  if not 0 < row['multiplier'] < np.inf:  # a law never reaches the loss
    return f'{b} and {a}: no {row["metric"]} that both laws reach near their points'
  interval = ''
  if 'ci95' in row:
    low, high = row['ci95']
    interval = f' (95%: {low:.3g} {f"to {high:.3g}" if np.isfinite(high) else "or more"})'
  less, p = (a, 'p_a') if row['multiplier'] > 1 else (b, 'p')  # of the group that is better here: p near 1 misleads
  better = f'; {less} needs less: p = {row[p]:.2g}' if p in row else ''
  return (f'{b} reaches {row["metric"]} {row["loss"]:.4g} with {row["multiplier"]:.3g}x the {what} of {a}{interval}'
          f'{better}')


def _describe_holdout(held, pleased):
  rows = held['rows']
  errors = [abs(row['predicted'] / row['measured'] - 1) for row in rows]
  factor = max(row['factor'] for row in rows)
  where = f'up to {factor:.2g}x the largest fitted size' if factor > 1.001 else 'inside the fitted range'
  count = f'{len(rows)} held-out {"point" if len(rows) == 1 else "points"}'
  text = f'predicts {count} {where} to within {_percent(max(errors))}'
  if 'inside' in rows[0]:
    text += f'; {sum(row["inside"] for row in rows)} of {len(rows)} inside their 95% prediction intervals'
  if held['rmsle'] < held['rmsle_persistence']:
    if not pleased:
      return text
    gain = held['rmsle_persistence'] / max(held['rmsle'], 1e-12)
    return f'{text}; {min(gain, 1000):.2g} times as accurate as "no change"'
  return f'{text}; NOT more accurate than "no change" ({_percent(held["rmsle_persistence"])} off)'


def _describe_fit(law):
  return f'fits {law["n"]} points to {_percent(law["diagnostics"]["sigma"])} (one sigma); extrapolation untested'


def _percent(value):
  return f'{100 * value:.2g}%'


def _is_open(name, law):
  valid_at_0 = ('E', 'e', law['diagnostics']['offset'])  # the irreducible part
  if name in law['diagnostics']['at_bound'] and name not in valid_at_0:
    return True
  if name in law['diagnostics']['ends_at_bound']:
    return True
  interval = (law['ci95'] or {}).get(name)
  if interval is None or name not in law['diagnostics']['exponents']:  # an amplitude is as uncertain as its exponent
    return False
  low, high = sorted(map(abs, interval))
  return interval[0] * interval[1] <= 0 or high > WIDE * low
