"""What a law is worth, in words."""

import re

import numpy as np

from vit_jax.scaling.frontier import COST_SPREAD

WIDE = 3.0  # an exponent whose interval spans more than this factor is not identified
FEW_CLUSTERS = 10


def number(value: float, digits: int = 4) -> str:
  """Significant digits, as 0.01234, 12.34, 1.234e9, 1e8."""
  return re.sub(r'e\+?(-?)0*', r'e\1', f'{value:.{digits}g}')


def verdict(law: dict) -> str:
  """One sentence: what was predicted how well, and what the data do not identify."""
  parts = [_holdout_words(law['holdout']) if law['holdout'] else _fit_words(law)]
  if unidentified := not_identified(law):
    parts.append(f'{" and ".join(unidentified)} not identified')
  elif law['ci95'] is None:
    parts.append('no intervals')
  return '; '.join(parts)


def not_identified(law: dict) -> list[str]:
  """The coefficients that the data leave open: at a bound, or with an interval too wide to mean a number."""
  return [name for name in law['coefficients'] if _open(name, law)]


def warnings(fit, boot, law, points, cost, settings, noise) -> list[str]:
  """All that a careful reader should know, in words."""
  out = list(fit.warnings)
  if settings.replicates and boot is None:
    out.append(f'no intervals: {law["bootstrap"]["clusters"]} independent runs or lineages are too few to resample, or '
               'most refits found no minimum')
  elif boot is not None and boot.clusters < FEW_CLUSTERS:
    out.append(f'the intervals rest on {boot.clusters} independent runs or lineages: they are likely too narrow')
  if boot is not None and boot.failed:
    out.append(f'{boot.failed} of {settings.replicates} refits found no minimum and were left out')
  for name in not_identified(law):
    interval = (law['ci95'] or {}).get(name)
    words = f': its 95% interval is {interval[0]:.3g} to {interval[1]:.3g}' if interval else ''
    out.append(f'{name} is not identified{words}')
  if law['compute_optimal']:
    if 'unique_examples' in fit.form.inputs:
      out.append('compute-optimal sizes and losses are those of examples that never repeat')
    if cost.assumed:
      out.append(cost.words())
    elif cost.spread > COST_SPREAD:
      out.append(f'FLOPs are not k N^q D for these points (off by up to {100 * cost.spread:.2g}%): compute-optimal '
                 'sizes are as uncertain')
  if not settings.holdout:
    out.append('no points were held out: extrapolation is untested')
  if noise and fit.objective.log and fit.sigma > 3 * noise['std_log']:
    out.append(f'the residuals ({100 * fit.sigma:.2g}%) are {fit.sigma / noise["std_log"]:.2g} times the spread '
               f'between seeds ({100 * noise["std_log"]:.2g}%): the form misses something real')
  out += [f'IsoFLOP budget {v["flops"]:.3g}: {v["note"]}' for v in law['isoflop'] if v['note']]
  return out


def multiplier_words(row: dict) -> str:
  """`B reaches loss 0.412 with 0.61x the FLOPs of A (95%: 0.55 to 0.68)`; `(95%: 0.55 or more)` where some never do."""
  a, b, what = row['a'], row['b'], {'flops': 'FLOPs'}.get(row['of'], row['of'])
  if not 0 < row['multiplier'] < np.inf:  # one of the laws never gets there
    return f'{b} and {a}: no common {row["metric"]} that both laws reach near their points'
  interval = ''
  if 'ci95' in row:
    low, high = row['ci95']
    interval = f' (95%: {low:.3g} {f"to {high:.3g}" if np.isfinite(high) else "or more"})'
  return f'{b} reaches {row["metric"]} {row["loss"]:.4g} with {row["multiplier"]:.3g}x the {what} of {a}{interval}'


def _holdout_words(held):
  rows = held['rows']
  errors = [abs(row['predicted'] / row['measured'] - 1) for row in rows]
  factor = max(row['factor'] for row in rows)
  where = f'{factor:.2g}x beyond the largest fitted run' if factor > 1.001 else 'inside the fitted range'
  count = f'{len(rows)} held-out {"point" if len(rows) == 1 else "points"}'
  words = f'predicts {count} {where} within {_percent(max(errors))}'
  if 'inside' in rows[0]:
    words += f'; {sum(row["inside"] for row in rows)} of {len(rows)} inside the 95% interval of a run'
  if held['rmsle'] < held['rmsle_persistence']:
    gain = held['rmsle_persistence'] / max(held['rmsle'], 1e-12)
    return f'{words}; {min(gain, 1000):.2g} times closer than "no change"'
  return f'{words}; NO closer than "no change" ({_percent(held["rmsle_persistence"])} off)'


def _fit_words(law):
  return f'fits {law["n"]} points within {_percent(law["diagnostics"]["sigma"])} (one sigma); extrapolation untested'


def _percent(value):
  return f'{100 * value:.2g}%'


def _open(name, law):
  if name in law['diagnostics']['at_bound'] and name not in ('E', 'e'):  # an irreducible part of 0 is an answer
    return True
  interval = (law['ci95'] or {}).get(name)
  if interval is None or name not in law['diagnostics']['exponents']:  # amplitudes are as open as their exponents
    return False
  low, high = sorted(map(abs, interval))
  return interval[0] * interval[1] <= 0 or high > WIDE * low
