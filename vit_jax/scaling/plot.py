"""Static figures, PNG and SVG: the law, the IsoFLOP valleys, and what to check."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

_INK, _FAINT = '#222222', '#8a8a8a'
_STYLE = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#666666',
          'axes.titlesize': 10, 'axes.titlelocation': 'left', 'axes.grid': True, 'grid.color': '#ececec',
          'axes.axisbelow': True, 'legend.frameon': False, 'svg.fonttype': 'none', 'svg.hashsalt': 'law',
          'text.parse_math': False, 'lines.solid_capstyle': 'round'}


def write(folder: Path, stem: str, data: dict[str, Any]) -> list[Path]:
  """Writes folder/stem.png and .svg of one group's payload, stem-isoflop where it has valleys, and stem-checks."""
  with matplotlib.rc_context(_STYLE):
    figures = {stem: law_figure(data), f'{stem}-checks': checks_figure(data)}
    if data['isoflop']:
      figures[f'{stem}-isoflop'] = isoflop_figure(data)
    written = []
    for name, figure in figures.items():
      for kind, extra in (('png', {'dpi': 160}), ('svg', {'metadata': {'Date': None}})):
        written.append(folder / f'{name}.{kind}')
        figure.savefig(written[-1], bbox_inches='tight', **extra)
  return written


def law_figure(data: dict[str, Any]) -> Figure:
  """Fitted points filled, held-out hollow, below the cut-off grey; both bands; extrapolation shaded; persistence."""
  figure = Figure(figsize=(7.2, 4.6), layout='constrained')
  axes, law = figure.add_subplot(), data['figure']
  axes.set(xscale='log', yscale='log', xlabel=law['x'], ylabel=law['y'])
  values = [p['y'] for p in data['points']]
  right = max(max(line['x']) for line in law['lines'])
  axes.axvspan(law['fitted_to'], right, color='#f3f1ea', zorder=0, lw=0)
  for line in law['lines']:
    if 'band_run' in line:
      axes.fill_between(line['x'], *line['band_run'], color=line['color'], alpha=0.10, lw=0, label='95%, a new run')
      axes.fill_between(line['x'], *line['band_law'], color=line['color'], alpha=0.30, lw=0, label='95%, the law')
    axes.plot(line['x'], line['y'], color=line['color'], lw=1.4, ls='--' if line['beyond'] else '-')
  for state, words, face in (('below', 'below the cut-off', '#c8c8c8'), ('fitted', 'fitted', None), ('held', 'held out', 'white')):
    _scatter(axes, [p for p in data['points'] if p['state'] == state], words, face)
  axes.axhline(law['persistence'], color=_FAINT, lw=1, ls=':', label='"no change" (largest fitted run)')
  low, high = min(values), max(values)
  pad = (high / low) ** 0.12
  axes.set_ylim(max(low / pad ** 1.6, min(min(line['y']) for line in law['lines']) / 1.02), high * pad)
  axes.set_xlim(min(p['x'] for p in data['points']) / 1.25, right)
  axes.text(law['fitted_to'], axes.get_ylim()[1], ' extrapolated', color=_FAINT, va='top', ha='left', fontsize=8)
  _plain_ticks(axes)
  _legend(axes, law)
  _title(axes, data)
  return figure


def isoflop_figure(data: dict[str, Any]) -> Figure:
  """Loss over N at each budget, with each optimum and its interval; a minimum outside its grid is a hollow triangle."""
  figure = Figure(figsize=(6.4, 4.4), layout='constrained')
  axes = figure.add_subplot()
  axes.set(xscale='log', xlabel='params', ylabel=data['figure']['y'], title='IsoFLOP valleys')
  for valley in data['isoflop']:
    axes.plot(valley['params'], valley['loss'], 'o', ms=4, color=valley['color'], label=f'{valley["flops"]:.2g} FLOPs')
    axes.plot(valley['curve_x'], valley['curve_y'], color=valley['color'], lw=1.2)
    place = [valley['optimum']], [valley['optimum_loss']]
    if valley['inside']:
      axes.plot(*place, 'D', ms=6, mfc='white', mec=valley['color'], mew=1.6)
      if valley['interval']:
        axes.plot(valley['interval'], [valley['optimum_loss']] * 2, color=_INK, lw=1, marker='|', ms=6)
    else:
      edge = np.clip(valley['optimum'], min(valley['params']), max(valley['params']))
      axes.annotate('minimum outside', (edge, min(valley['loss'])), color=valley['color'], fontsize=7,
                    xytext=(0, -12), textcoords='offset points', ha='center')
  values = [v for valley in data['isoflop'] for v in valley['loss']]
  axes.set_ylim(min(values) - 0.06 * (max(values) - min(values)), max(values) + 0.05 * (max(values) - min(values)))
  axes.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5))
  return figure


def checks_figure(data: dict[str, Any]) -> Figure:
  """Residuals over size and data, the exponents' bootstrap cloud, and the error of forecasts over their distance."""
  figure = Figure(figsize=(9.6, 5.6), layout='constrained')
  panels = figure.subplots(2, 2).ravel()
  names = [n for n in ('params', 'examples', 'learning_rate', 'flops') if any(p.get(n) for p in data['points'])] or ['x']
  for axes, name in zip(panels[:2], (names * 2)[:2] if len(names) > 1 else [names[0], None]):
    if name is None:
      _histogram(axes, data)
    else:
      _residuals(axes, data, name)
  _cloud(panels[2], data['cloud'])
  _rollout(panels[3], data['rollout'])
  return figure


def _scatter(axes, chosen, words, face):
  if chosen:
    axes.scatter([p['x'] for p in chosen], [p['y'] for p in chosen], s=22 if face is None else 30, zorder=3, linewidths=1.3,
                 c=face or [p['color'] for p in chosen],
                 edgecolors=[p['color'] for p in chosen] if face != '#c8c8c8' else face, label=words)


def _legend(axes, law):
  handles, labels = axes.get_legend_handles_labels()
  unique = dict(zip(labels, handles))
  for line in law['lines']:
    if line['label']:
      unique[line['label']] = matplotlib.lines.Line2D([], [], color=line['color'], ls='--' if line['beyond'] else '-')
  axes.legend(unique.values(), unique.keys(), fontsize=7.5, loc='center left', bbox_to_anchor=(1, 0.5))


def _title(axes, data):
  words, lines, room = data['law']['verdict'].split(), [''], 92
  for word in words:
    if len(lines[-1]) + len(word) > room:
      lines.append('')
    lines[-1] += word + ' '
  name = f'{data["name"]}: ' if data['name'] else ''
  axes.set_title(f'{name}{data["law"]["metric"]} = {data["law"]["diagnostics"]["formula"].split(";")[0]}\n' + '\n'.join(lines),
                 fontsize=8.5, color=_INK)


def _plain_ticks(axes):
  """Plain numbers on a log axis that spans less than two decades, where matplotlib would print 3 x 10^0."""
  low, high = axes.get_ylim()
  if high / low < 100:
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high / low > 3 else np.arange(10, 100) / 10))
    axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator(_ticks(low, high)))
    axes.yaxis.set_major_formatter(lambda v, _: f'{v:.3g}')
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _ticks(low, high):
  """About five round values from low to high, evenly spread in their logarithm."""
  wanted = np.exp(np.linspace(np.log(low), np.log(high), 7))[1:-1]
  step = 10 ** np.floor(np.log10(np.diff(wanted).min()))
  return np.unique(np.round(wanted / step) * step)


def _residuals(axes, data, name):
  chosen = [p for p in data['points'] if p.get(name)]
  axes.axhspan(-2, 2, color='#f0f0f0', zorder=0)
  axes.axhline(0, color=_FAINT, lw=1)
  for p in chosen:
    axes.plot(p[name], np.clip(p['residual'], -8, 8), 'o', ms=4, color=p['color'],
              mfc='white' if p['state'] == 'held' else p['color'] if p['state'] == 'fitted' else '#c8c8c8')
  axes.set(xscale='log', xlabel=name.replace('_', ' '), ylabel='residual (sigma)', title=f'Residuals over {name.replace("_", " ")}')


def _histogram(axes, data):
  axes.hist([p['residual'] for p in data['points'] if p['state'] == 'fitted'], bins=15, color='#3e4a89')
  axes.set(xlabel='residual (sigma)', ylabel='points', title='Residuals')


def _cloud(axes, cloud):
  axes.set_title('Bootstrap of the exponents')
  if cloud is None:
    axes.text(0.5, 0.5, 'no intervals', color=_FAINT, ha='center', transform=axes.transAxes)
    return
  axes.plot(cloud['x'], cloud['y'], 'o', ms=2.5, color='#31688e', alpha=0.35, mew=0)
  axes.plot(*[[v] for v in cloud['best']], '+', ms=11, mew=2, color='#b5331e')
  axes.set(xlabel=cloud['names'][0], ylabel=cloud['names'][1])


def _rollout(axes, rows):
  axes.set(title='Forecast error over distance', xlabel='size over the largest fitted', ylabel='|ln predicted / measured|')
  if not rows:
    axes.text(0.5, 0.5, 'too few sizes', color=_FAINT, ha='center', transform=axes.transAxes)
    return
  factor = [row['factor'] for row in rows]
  axes.plot(factor, [abs(row['persistence']) for row in rows], 'o', ms=3, color='#c0c0c0', label='"no change"')
  axes.plot(factor, [abs(row['error']) for row in rows], 'o', ms=3.5, color='#31688e', label='the law')
  axes.set(xscale='log', yscale='log')
  axes.legend(fontsize=8)
