"""The data of the figures as plain lists, for both the report page (JavaScript) and the static figures (matplotlib)."""

from typing import Any

import numpy as np

from vit_jax.scaling import points as points_lib
from vit_jax.scaling import what_if
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.rollout import medians, persistence
from vit_jax.scaling.verdict import number

LINES = 8  # the maximum number of model sizes with a line; points are shown for all sizes
PLACES = 80  # the number of vertices of a line
BEYOND = 3.0  # the end of a line / the largest x
FULL = 8  # groups; of more, the page shows less of each
_WORDS = {'params': 'N', 'examples': 'D (examples seen)'}  # what inputs are called in a figure
CLOUD = 600  # the maximum number of refits in the bootstrap figure
# Viridis without its light end, which is invisible on white. Its order survives color blindness and gray printing.
_PALETTE = ('#440154', '#482878', '#3e4a89', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6cc24a')
# Groups have no order, so their colors have none (Okabe & Ito 2008). They repeat after the eighth.
_GROUP_COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#222222', '#8c6bb1')


def payloads(groups: dict[str, Analysis]) -> list[dict[str, Any]]:
  """The payload of each group, with its color in the figure of all groups; of more than FULL groups a lean one."""
  out = [payload(name, analysis, lean=len(groups) > FULL) | {'color': group_color(i)}
         for i, (name, analysis) in enumerate(groups.items())]
  over_flops = all(group['optimum'] and all(p.get('flops') for p in group['points']) for group in out)
  for group in out:
    group['together'] = _over_flops(group) if over_flops else _over_x(group)
  return out


def _over_flops(group):
  """A group's curve in the figure of all groups: its lowest loss at each compute."""
  best, trained = group['optimum'], [p['flops'] for p in group['points']]
  near = [min(trained) / BEYOND <= flops <= max(trained) * BEYOND for flops in best['flops']]
  keep = lambda values: [value for value, inside in zip(values, near) if inside]
  band = {'band_law': [keep(edge) for edge in best['loss_ci95']]} if 'loss_ci95' in best else {}
  return {'by': 'flops', 'x_label': 'training FLOPs', 'label': 'compute-optimal', 'x': keep(best['flops']),
          'y': keep(best['loss'])} | band


def _over_x(group):
  """The same where groups have no compute in common: the line that has a band, over x."""
  line = next((line for line in group['figure']['lines'] if 'band_law' in line), group['figure']['lines'][0])
  shown = {key: line[key] for key in ('label', 'x', 'y', 'band_law') if key in line}
  return {'by': 'x', 'x_label': group['figure']['x'], **shown}


def payload(name: str, analysis: Analysis, lean: bool = False) -> dict[str, Any]:
  """The data of one group's figures, tables and checklist; lean: without refits, forecasts, candidates, grid."""
  points, law = analysis.points, analysis.law
  sizes = points.columns.get(line_column(analysis) or 'params')
  low, high = (np.log(sizes.min()), np.log(sizes.max())) if sizes is not None else (0.0, 0.0)
  color = lambda n: ordered_color((np.log(n) - low) / (high - low) if high > low else 0.4)
  return {
      'name': name, 'law': law | {'selection': None} if lean else law, 'irreducible': analysis.fit.irreducible,
      'figure': _law_figure(analysis, color), 'points': _points(analysis, color), 'isoflop': _isoflop(analysis),
      'cloud': None if lean else _cloud(analysis), 'rollout': [] if lean else analysis.rollout,
      'rollout_medians': medians(analysis.rollout),
      'curves': _curves(analysis, color), 'checklist': checklist(analysis),
      'grid': None if lean else what_if.grid(analysis), 'optimum': what_if.optimum(analysis),
      'filters': what_if.filters(points)}


def group_color(i: int) -> str:
  """The color of the i-th group."""
  return _GROUP_COLORS[i % len(_GROUP_COLORS)]


def ordered_color(share: float) -> str:
  """The color at `share` of the ordered palette, from 0 (smallest) to 1 (largest)."""
  place = float(np.clip(share, 0, 1)) * (len(_PALETTE) - 1)
  i = min(int(place), len(_PALETTE) - 2)
  mix = [round((1 - (place - i)) * int(_PALETTE[i][k:k + 2], 16) + (place - i) * int(_PALETTE[i + 1][k:k + 2], 16))
         for k in (1, 3, 5)]
  return '#' + ''.join(f'{v:02x}' for v in mix)


def x_column(analysis: Analysis) -> str:
  """The column on the x-axis of the law figure: x, examples for forms in N and D, else the input with most values."""
  inputs = analysis.fit.form.inputs
  if 'area' in inputs:  # a law of whole curves
    return 'area'
  values = {name: len(np.unique(analysis.points.columns[name])) for name in inputs}
  return next((name for name in ('x', 'examples') if name in inputs), max(values, key=values.get))


def line_column(analysis: Analysis) -> str | None:
  """The input that each line of the law figure has a value of: N, or the first other one; None for one input."""
  others = [name for name in analysis.fit.form.inputs if name not in (x_column(analysis), 'unique_examples')]
  return 'params' if 'params' in others else next(iter(others), None)


def checklist(analysis: Analysis) -> list[list[str]]:
  """What a reader needs to judge the fit, as rows [topic, answer].

  It follows the checklist of (Mis)Fitting (Li et al. 2025, arXiv 2502.18969).
  """
  law, points, fit = analysis.law, analysis.points, analysis.fit
  objective, d, boot = law['objective'], law['diagnostics'], law['bootstrap']
  delta = f', delta {objective["delta"]:g} of log loss' if 'delta' in objective else ''
  splits = sorted({row['split'] for row in points.rows if row.get('split')})
  second = d['second_optimum']
  return [
      ['Form', f'{"" if fit.form.name == fit.form.formula else fit.form.name + ": "}{fit.form.formula}. '
       f'{fit.form.source}'],
      ['Form and cut-off', analysis.selection.describe() if analysis.selection else 'form given, no cut-off'],
      ['What is counted', _counted(points, analysis)],
      ['Checkpoints and metric', f'{law["metric"]}{" on " + ", ".join(splits) if splits else ""}; a run folder is one '
       'point, its last evaluation; unfinished runs are dropped'],
      ['Points', f'{law["n"]} fitted, {int(analysis.held.sum())} held out, '
       f'{int((~analysis.fitted & ~analysis.held).sum())} below the cut-off, {len(points.dropped)} dropped'],
      ['Dropped', '; '.join(points.describe_dropped()) or 'none'],
      ['Objective', f'{objective["name"]}{delta}, summed over the points: {objective["value"]:.6g}'
       f'{f"; weighted by 1/{analysis.settings.sigma}^2" if analysis.settings.sigma else ""}'],
      ['Starts', f'{d["starts"]} scored, {d["starts_ended_here"]} of the refined ones converged to this optimum; next '
       'optimum: ' + (f'objective {100 * second["excess"]:.2g}% higher' if second else 'none found')],
      ['Minimum', f'relative gradient {d["gradient"]:.1g}; at a bound: '
       f'{", ".join(d["at_bound"]) or "none"}; condition number {d["condition"]:.3g}'],
      ['Intervals', f'95% percentiles of {boot["n"]} refits to resampled runs ({boot["clusters"]} independent runs or '
       f'lineages), seed {boot["seed"]}, {boot["failed"]} did not converge' if boot['n'] else 'none'],
      ['Noise', f'residuals {100 * d["sigma"]:.2g}% (one sigma); ' + _describe_seeds(law['seed_noise'])],
      ['Hold-out', analysis.settings.holdout or 'none: extrapolation is untested'],
      ['Notes', '; '.join(law['notes']) or 'none']]


def _describe_seeds(noise):
  if not noise:
    return 'no runs differ only in their seed'
  return f'seeds {100 * noise["std_log"]:.2g}% ({noise["runs"]} runs in {noise["sets"]} sets)'


def _counted(points, analysis):
  flops = points.columns.get('flops', points.columns['x'] if points.x_name == 'flops' else None)
  parts = ['params as given in the points (point at one for the count without embeddings and head, if logged)',
           'examples seen, including repeats',
           'training FLOPs as given in the points' if flops is not None else 'no FLOPs in the points']
  if analysis.law['compute_optimal']:
    parts.append(analysis.law['compute_optimal']['cost'])
  return '; '.join(parts)


def _law_figure(analysis, color):
  points, fit, x_name = analysis.points, analysis.fit, x_column(analysis)
  x, (_, size) = points.columns[x_name], points.size
  lines, last = _lines(analysis, x_name, color), persistence(size[analysis.fitted], points.y[analysis.fitted])
  return {'x': points.x_name if x_name == 'x' else x_name, 'y': points.metric, 'lines': lines, 'persistence': last,
          'fitted_from': float(x[analysis.fitted].min()), 'fitted_to': float(x[analysis.fitted].max()),
          'inputs': [[name, _WORDS.get(name, points.x_name if name == 'x' else name)]
                     for name in dict.fromkeys(('params', *fit.form.inputs)) if name in points.columns]}


def _lines(analysis, x_name, color):
  points, by = analysis.points, line_column(analysis)
  if 'area' in analysis.fit.form.inputs:
    return _run_lines(analysis)
  middle = {name: float(np.exp(np.mean(np.log(points.columns[name])))) for name in analysis.fit.form.inputs
            if name not in (by, x_name, 'unique_examples')}
  if by is None:
    return [_line(analysis, x_name, middle, _PALETTE[2], '', False, True)]
  sizes = np.unique(points.columns[by])
  shown = sizes[np.unique(np.linspace(0, len(sizes) - 1, LINES).round().astype(int))]
  held = np.unique(points.columns[by][analysis.held]) if analysis.held.any() else sizes[-1:]
  banded = shown[np.argmin(np.abs(np.log(shown / held[-1])))]  # bands on all lines would hide the points
  top, name = points.columns[by][analysis.fitted].max(), {'params': 'N'}.get(by, by)
  return [_line(analysis, x_name, {**middle, by: n}, color(n), f'{name} = {number(n, 3)}', bool(n > top),
                bool(n == banded)) for n in shown]


def _run_lines(analysis):
  """Of a law of whole curves: what it says of some runs at their own evaluations; the last has a band."""
  points, names = analysis.points, sorted(set(analysis.points.runs))
  shown, out = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, LINES).round().astype(int))], []
  for i, name in enumerate(shown):
    own = points.take(np.array([run == name for run in points.runs]))
    own = own.take(np.argsort(own.columns['area']))
    out.append({'label': name, 'color': group_color(i), 'x': own.columns['area'].tolist(),
                'beyond': bool(analysis.held[[run == name for run in points.runs]].any()),
                'y': analysis.fit.predict(own.columns).tolist()})
    if name == shown[-1] and analysis.boot:
      law, run = analysis.boot.bands(own.columns)
      out[-1] |= {'band_law': law.tolist(), 'band_run': run.tolist()}
  return out


def _line(analysis, x_name, constants, color, label, beyond, banded):
  points = analysis.points
  x = np.geomspace(points.columns[x_name].min(), points.columns[x_name].max() * BEYOND, PLACES)
  columns = {x_name: x, **{name: np.full(PLACES, value) for name, value in constants.items()}}
  if 'unique_examples' in points.columns:
    columns['unique_examples'] = np.full(PLACES, np.max(points.columns['unique_examples']))
  out = {'label': label, 'color': color, 'beyond': beyond, 'x': x.tolist(), 'y': analysis.fit.predict(columns).tolist()}
  if banded and analysis.boot:
    law, run = analysis.boot.bands(columns)
    out |= {'band_law': law.tolist(), 'band_run': run.tolist()}
  return out


def _points(analysis, color):
  points, fit = analysis.points, analysis.fit
  predicted = fit.predict(points.columns)
  residual = (np.log(points.y / predicted) if fit.objective.log else points.y - predicted) / max(fit.sigma, 1e-300)
  x, size = points.columns[x_column(analysis)], points.columns.get(line_column(analysis) or 'params')
  out, differs = [], points_lib.differences(points)
  for i in range(len(points)):
    row = points.rows[i]
    state = 'fitted' if analysis.fitted[i] else 'held' if analysis.held[i] else 'below'
    out.append({
        **{k: _plain(v[i]) for k, v in points.columns.items()},
        'run': points.runs[i], 'x': float(x[i]), 'y': float(points.y[i]), 'state': state,
        'predicted': float(predicted[i]),
        'color': color(size[i]) if size is not None else _PALETTE[2], 'residual': float(residual[i]),
        'differs': differs[i],
        'params_non_embedding': _plain(row.get('params_non_embedding')),
        'learning_rate': _plain(row.get('learning_rate')), 'step': _plain(row.get('step')),
        'stage': 'final' if row.get('_config') is not None else ''})
  return out


def _plain(value):
  try:
    return float(value)
  except (TypeError, ValueError):
    return None


def _isoflop(analysis):
  n = len(analysis.valleys)
  out = []
  for i, valley in enumerate(analysis.valleys):
    u = np.linspace(np.log(valley.params.min()), np.log(valley.params.max()), 60)
    out.append({'flops': valley.flops, 'color': ordered_color(i / max(n - 1, 1)), 'params': valley.params.tolist(),
                'loss': valley.loss.tolist(), 'curve_x': np.exp(u).tolist(),
                'curve_y': np.polyval(valley.curve, u - valley.centre).tolist(), 'optimum': valley.optimum,
                'optimum_loss': valley.optimum_loss, 'interval': valley.interval, 'inside': valley.inside,
                'note': valley.note})
  return out


def _cloud(analysis):
  """The first two exponents (or other coefficients that are not amplitudes) of the refits."""
  form, boot = analysis.fit.form, analysis.boot
  names = list(form.exponents) + [n for n in form.names if n in ('E', 'e', 'c', 'g', 'd') and n not in form.exponents]
  if boot is None or len(names) < 2:
    return None
  i, j = (form.names.index(name) for name in names[:2])
  draws = boot.coefficients[:CLOUD]
  best = analysis.fit.coefficients
  return {'names': names[:2], 'x': draws[:, i].tolist(), 'y': draws[:, j].tolist(),
          'best': [best[n] for n in names[:2]]}


def _curves(analysis, color):
  points, out = analysis.points, []
  size = points.columns.get('params')
  for i, run in enumerate(points.runs):
    if run in points.curves and len(points.curves[run][0]) > 1:
      x, y = points.curves[run]
      shade = color(size[i]) if size is not None else _PALETTE[2]
      out.append({'run': run, 'color': shade, 'x': x.tolist(), 'y': y.tolist()})
  return out
