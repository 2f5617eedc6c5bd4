"""Static figures, PNG and SVG: the law, the IsoFLOP valleys and the diagnostics."""

import textwrap
from typing import Any

import numpy as np
from etils import epath
from matplotlib import lines, ticker
from matplotlib.figure import Figure

from vit_jax.drawing import figure as figure_lib
from vit_jax.drawing.figure import AS_IS, FAINT, GREY, INK


def write(folder: epath.Path, stem: str, data: dict[str, Any]) -> list[epath.Path]:
  """Writes one group's figures: STEM, STEM-checks, STEM-optimum of laws that have one, STEM-isoflop of valleys."""
  with figure_lib.style():
    figures = {stem: law_figure(data), f'{stem}-checks': checks_figure(data)}
    if data['optimum']:
      figures[f'{stem}-optimum'] = optimum_figure(data)
    if data['isoflop']:
      figures[f'{stem}-isoflop'] = isoflop_figure(data)
    return [path for name, figure in figures.items() for path in figure_lib.write(figure, folder, name)]


def write_together(folder: epath.Path, stem: str, groups: list[dict[str, Any]]) -> list[epath.Path]:
  """Writes the figure STEM of all groups' payloads."""
  with figure_lib.style():
    return figure_lib.write(groups_figure(groups), folder, stem)


def groups_figure(groups: list[dict[str, Any]]) -> Figure:
  """The points and the law of each group, with the law's band if it has one.

  Where all groups have FLOPs and a compute-optimal size, the curves are the lowest loss at each compute. Else a law in
  N and D has a line per model size, and the one with the band is shown.
  """
  figure = Figure(figsize=(7.2, 4.6), layout='constrained')
  axes = figure.add_subplot()
  axes.set(xscale='log', yscale='log')
  by = groups[0]['together']['by']
  axes.set_xlabel(groups[0]['together']['x_label'], **AS_IS)
  axes.set_ylabel(groups[0]['figure']['y'], **AS_IS)
  for group in groups:
    line = group['together']
    if 'band_law' in line:
      axes.fill_between(line['x'], *line['band_law'], color=group['color'], alpha=0.16, lw=0)
    axes.plot(line['x'], line['y'], color=group['color'], lw=1.4)
    label = f'{group["name"]}, {line["label"]}' if line['label'] else group['name']
    axes.scatter([p[by] for p in group['points']], [p['y'] for p in group['points']], s=18, zorder=3,
                 color=group['color'], label=label)
  points = [p for group in groups for p in group['points']]
  low, high = min(p['y'] for p in points), max(p['y'] for p in points)
  axes.set_ylim(low / (high / low) ** 0.15, high * (high / low) ** 0.1)
  axes.set_xlim(min(p[by] for p in points) / 1.25, max(p[by] for p in points) * 2)
  _plain_ticks(axes)
  legend = axes.legend(fontsize=7.5, loc='center left', bbox_to_anchor=(1, 0.5))
  for text in legend.get_texts():
    text.set_parse_math(False)
  return figure


def law_figure(data: dict[str, Any]) -> Figure:
  """The law with both bands and the persistence forecast; the extrapolated range is shaded.

  Fitted points are filled, held-out points hollow, and points below the cut-off gray.
  """
  figure = Figure(figsize=(7.2, 4.6), layout='constrained')
  axes, law = figure.add_subplot(), data['figure']
  axes.set(xscale='log', yscale='log')
  axes.set_xlabel(law['x'], **AS_IS)
  axes.set_ylabel(law['y'], **AS_IS)
  right = max(*(max(line['x']) for line in law['lines']), *(1.05 * p['x'] for p in data['points']))
  axes.axvspan(law['fitted_to'], right, color='#f3f1ea', zorder=0, lw=0)
  for line in law['lines']:
    if 'band_run' in line:
      axes.fill_between(line['x'], *line['band_run'], color=line['color'], alpha=0.12, lw=0, label='95%, new run')
      axes.fill_between(line['x'], *line['band_law'], color=line['color'], alpha=0.30, lw=0, label='95%, law')
    axes.plot(line['x'], line['y'], color=line['color'], lw=1.4, ls='--' if line['beyond'] else '-')
  states = (('below', 'below the cut-off', GREY), ('fitted', 'fitted', None), ('held', 'held out', 'white'))
  for state, label, face in states:
    _scatter(axes, [p for p in data['points'] if p['state'] == state], label, face)
  axes.axhline(law['persistence'], color=FAINT, lw=1, ls=':', label='"no change" (largest fitted run)')
  axes.set_ylim(*_limits([p['y'] for p in data['points']], law['lines']))
  axes.set_xlim(min(p['x'] for p in data['points']) / 1.25, right)
  axes.text(law['fitted_to'], axes.get_ylim()[1], ' extrapolated', color=FAINT, va='top', ha='left', fontsize=8)
  _plain_ticks(axes)
  _legend(axes, law)
  _title(axes, data)
  return figure


def isoflop_figure(data: dict[str, Any]) -> Figure:
  """Loss over N at each budget, with each optimum and its interval; a minimum outside its grid is labeled so."""
  figure = Figure(figsize=(6.4, 4.4), layout='constrained')
  axes = figure.add_subplot()
  axes.set(xscale='log', xlabel='params', title='IsoFLOP valleys')
  axes.set_ylabel(data['figure']['y'], **AS_IS)
  for valley in data['isoflop']:
    axes.plot(valley['params'], valley['loss'], 'o', ms=4, color=valley['color'], label=f'{valley["flops"]:.2g} FLOPs')
    axes.plot(valley['curve_x'], valley['curve_y'], color=valley['color'], lw=1.2)
    place = [valley['optimum']], [valley['optimum_loss']]
    if valley['inside']:
      axes.plot(*place, 'D', ms=6, mfc='white', mec=valley['color'], mew=1.6)
      if valley['interval']:
        axes.plot(valley['interval'], [valley['optimum_loss']] * 2, color=INK, lw=1, marker='|', ms=6)
    else:
      edge = np.clip(valley['optimum'], min(valley['params']), max(valley['params']))
      axes.annotate('minimum outside', (edge, min(valley['loss'])), color=valley['color'], fontsize=7,
                    xytext=(0, -12), textcoords='offset points', ha='center')
  values = [v for valley in data['isoflop'] for v in valley['loss']]
  axes.set_ylim(min(values) - 0.06 * (max(values) - min(values)), max(values) + 0.05 * (max(values) - min(values)))
  axes.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
  return figure


def optimum_figure(data: dict[str, Any]) -> Figure:
  """The compute-optimal N and D over training FLOPs with their 95% bands, the trained runs, and the valleys' optima."""
  figure = Figure(figsize=(9.6, 3.8), layout='constrained')
  best, runs = data['optimum'], [p for p in data['points'] if p.get('flops')]
  for axes, name, label in zip(figure.subplots(1, 2), ('params', 'examples'), ('N*', 'D*')):
    axes.set(xscale='log', yscale='log', xlabel='training FLOPs', ylabel=label)
    if f'{name}_ci95' in best:
      axes.fill_between(best['flops'], *best[f'{name}_ci95'], color='#31688e', alpha=0.25, lw=0, label='95%')
    axes.plot(best['flops'], best[name], color='#31688e', lw=1.4, label=f'{label}, law')
    axes.scatter([p['flops'] for p in runs], [p[name] for p in runs], s=9, color=FAINT, label='trained')
    for valley in data['law']['isoflop']:
      if valley['inside']:
        axes.plot(valley['flops'], valley[name], 'D', ms=6, mfc='white', mec=INK, mew=1.4, label='valley')
        if name == 'params' and valley['params_ci95']:
          axes.plot([valley['flops']] * 2, valley['params_ci95'], color=INK, lw=1)
    values = [*best[name], *(p[name] for p in runs)]
    axes.set_ylim(min(values) / 1.5, max(values) * 1.5)  # the band may have no end
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    axes.legend(unique.values(), unique.keys(), fontsize=7.5)
  return figure


def checks_figure(data: dict[str, Any]) -> Figure:
  """Residuals over two inputs, a scatter plot of the bootstrapped exponents, and forecast error over distance."""
  figure = Figure(figsize=(9.6, 5.6), layout='constrained')
  panels = figure.subplots(2, 2).ravel()
  columns = dict.fromkeys([*(name for name, _ in data['figure']['inputs']), 'examples', 'learning_rate', 'flops'])
  names = [name for name in columns if len({p.get(name) for p in data['points']}) > 1] or ['x']
  for axes, name in zip(panels[:2], (names * 2)[:2] if len(names) > 1 else [names[0], None]):
    if name is None:
      _histogram(axes, data)
    else:
      _residuals(axes, data, name)
  _cloud(panels[2], data['cloud'])
  _rollout(panels[3], data['rollout'], data['rollout_medians'])
  return figure


def _limits(values, lines):
  """Limits of a log axis that hold points, curves and bands, but for bands wider than all points and curves."""
  curves = [v for line in lines for v in line['y']]
  bands = [v for line in lines for key in ('band_run', 'band_law') for edge in line.get(key, []) for v in edge]
  low, high = min(values + curves), max(values + curves)
  span = max(high / low, 1.05)
  inside = [v for v in bands if low / span <= v <= high * span]
  return min([low, *inside]) / span ** 0.05, max([high, *inside]) * span ** 0.05


def _scatter(axes, chosen, label, face):
  if chosen:
    colors = [p['color'] for p in chosen]
    axes.scatter([p['x'] for p in chosen], [p['y'] for p in chosen], s=30 if face == 'white' else 22, zorder=3,
                 linewidths=1.3, c=face or colors, edgecolors=face if face == GREY else colors, label=label)


def _legend(axes, law):
  handles, labels = axes.get_legend_handles_labels()
  unique = dict(zip(labels, handles))
  for line in law['lines']:
    if line['label']:
      unique[line['label']] = lines.Line2D([], [], color=line['color'], ls='--' if line['beyond'] else '-')
  for label, face in (('fitted', INK), ('held out', 'white')):
    if label in unique:  # without color, which shows the size
      unique[label] = lines.Line2D([], [], ls='', marker='o', ms=6, mec=INK, mfc=face)
  axes.legend(unique.values(), unique.keys(), fontsize=7.5, loc='center left', bbox_to_anchor=(1, 0.5))


def _title(axes, data):
  name = f'{data["name"]}: ' if data['name'] else ''
  title = [name + data['law']['diagnostics']['equation'], *textwrap.wrap(data['law']['verdict'], 92)]
  axes.set_title('\n'.join(title), fontsize=8.5, color=INK, **AS_IS)


def _plain_ticks(axes):
  """Labels a log axis of less than two decades with plain numbers; matplotlib would write 3 x 10^0."""
  low, high = axes.get_ylim()
  if high / low < 100:
    axes.yaxis.set_major_locator(ticker.FixedLocator(_ticks(low, high)))
    axes.yaxis.set_major_formatter(lambda v, _: f'{v:.3g}')
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _ticks(low, high):
  """Round numbers from low to high, for a log axis."""
  if high / low < 3:
    return [v for v in ticker.MaxNLocator(6).tick_values(low, high) if low <= v <= high]
  steps = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 8 else (1, 2, 5)
  powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
  return [m * power for power in powers for m in steps if low <= m * power <= high]


def _residuals(axes, data, name):
  chosen = [p for p in data['points'] if p.get(name)]
  axes.axhspan(-2, 2, color='#f0f0f0', zorder=0)
  axes.axhline(0, color=FAINT, lw=1)
  faces = {'held': 'white', 'below': GREY}
  axes.scatter([p[name] for p in chosen], np.clip([p['residual'] for p in chosen], -8, 8), s=16, linewidths=1,
               c=[faces.get(p['state'], p['color']) for p in chosen], edgecolors=[p['color'] for p in chosen])
  axes.set(xscale='log', xlabel=name.replace('_', ' '), ylabel='residual (sigma)')
  axes.set_title(f'Residuals over {name.replace("_", " ")}')


def _histogram(axes, data):
  axes.hist([p['residual'] for p in data['points'] if p['state'] == 'fitted'], bins=15, color='#3e4a89')
  axes.set(xlabel='residual (sigma)', ylabel='points', title='Residuals')


def _cloud(axes, cloud):
  axes.set_title('Bootstrap of the exponents')
  if cloud is None:
    axes.text(0.5, 0.5, 'no intervals', color=FAINT, ha='center', transform=axes.transAxes)
    return
  axes.plot(cloud['x'], cloud['y'], 'o', ms=2.5, color='#31688e', alpha=0.35, mew=0)
  axes.plot(*[[v] for v in cloud['best']], '+', ms=11, mew=2, color='#b5331e')
  axes.set(xlabel=cloud['names'][0], ylabel=cloud['names'][1])


def _rollout(axes, rows, medians):
  axes.set(xlabel='size / largest fitted size', ylabel='|ln(predicted / measured)|')
  axes.set_title('Forecast error over distance')
  if not rows:
    axes.text(0.5, 0.5, 'too few sizes', color=FAINT, ha='center', transform=axes.transAxes)
    return
  for key, color, label in (('persistence', '#b0b4bb', '"no change"'), ('error', '#31688e', 'law')):
    factor, error = [row['factor'] for row in rows], [abs(row[key]) for row in rows]
    axes.plot(factor, error, 'o', ms=3, color=color, alpha=0.35, mew=0)
    axes.plot([row['factor'] for row in medians], [row[key] for row in medians], 'o-', ms=5, color=color,
              label=f'{label}, median')
  factors = [row['factor'] for row in rows]
  axes.set_xlim(min(factors) / 1.2, max(factors) * 1.2)  # before the scale is set: a single factor has no range
  axes.set(xscale='log', yscale='log')
  axes.legend(fontsize=8)
