"""The style of static figures, and writing them."""

import io
from collections.abc import Sequence

import matplotlib
from etils import epath
from matplotlib.figure import Figure

from vit_jax import durable

INK, FAINT, GREY = '#222222', '#8a8a8a', '#c8c8c8'
AS_IS = {'parse_math': False}  # names from logs may contain dollar signs
_STYLE = {'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#666666',
          'axes.titlesize': 10, 'axes.titlelocation': 'left', 'axes.grid': True, 'grid.color': '#ececec',
          'axes.axisbelow': True, 'legend.frameon': False, 'svg.fonttype': 'none', 'svg.hashsalt': 'law',
          'lines.solid_capstyle': 'round'}


def style():
  """A context that sets the style for making and writing figures."""
  return matplotlib.rc_context(_STYLE)


def write(figure: Figure, folder: epath.Path, stem: str, kinds: Sequence[str] = ('png', 'svg')) -> list[epath.Path]:
  """Writes FOLDER/STEM.KIND for each kind, locally or to a bucket; returns the paths."""
  written = []
  for kind in kinds:
    content = io.BytesIO()
    extra = {'dpi': 160} if kind == 'png' else {'metadata': {'Date': None}}
    figure.savefig(content, format=kind, bbox_inches='tight', **extra)
    written.append(folder / f'{stem}.{kind}')
    durable.write(written[-1], content.getvalue())
    figure.set_layout_engine('none')  # keep the layout, because computing it again takes half of the time
  return written
