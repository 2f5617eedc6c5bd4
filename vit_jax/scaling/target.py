"""Predictions at points that are not there yet: --target, such as params=1e9,examples=1e10."""

import math

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.scaling import written
from vit_jax.scaling.analysis import Analysis

Target = dict[str, float]


def parse(text: str) -> list[Target]:
  """The targets of a text such as `params=1e9,examples=1e10; params=4e9,examples=1e10`; N, D and C are known too.

  Raises:
    UserError: an item that is not NAME=NUMBER with a number above 0, or a name twice.
  """
  out = []
  for part in filter(str.strip, text.split(';')):
    target: Target = {}
    for item in part.split(','):
      name, _, number = (word.strip() for word in item.partition('='))
      name = written.ALIASES.get(name, name)
      try:
        value = float(number)
      except ValueError:
        value = math.nan
      if not (name and 0 < value < math.inf) or name in target:
        raise UserError(f'--target={text}: expected NAME=NUMBER,... with numbers above 0, such as '
                        f'params=1e9,examples=1e10, got {item.strip()!r}')
      target[name] = value
    out.append(target)
  if not out:
    raise UserError('--target: expected a target such as params=1e9,examples=1e10')
  return out


def columns(targets: list[Target], inputs: tuple[str, ...], x_name: str | None) -> dict[str, np.ndarray]:
  """The inputs of a form at m targets, {name: [m]}.

  Raises:
    UserError: a target lacks an input, or has a name that is none.
  """
  theirs = {name: x_name if name == 'x' else name for name in inputs}
  for target in targets:
    for name in target:
      if name not in theirs.values():
        raise UserError(f'--target: {name} is no input of the law{nearest(name, theirs.values())}')
    if missing := [name for name in theirs.values() if name not in target]:
      raise UserError(f'--target={describe(target)}: expected {" and ".join(map(str, missing))} too')
  return {ours: np.array([target[name] for target in targets]) for ours, name in theirs.items()}


def predict(analysis: Analysis, targets: list[Target]) -> list[dict]:
  """What a law predicts at targets, as rows {target, metric, predicted, ci95 (law), ci95_run (a new run), factor}.

  `factor` is the target's size over that of the largest fitted point, by the product of the inputs.
  """
  fit, boot = analysis.fit, analysis.boot
  at = columns(targets, fit.form.inputs, analysis.points.x_name)
  value = fit.predict(at)
  law, run = boot.bands(at) if boot else (None, None)
  size = fit.factor(at)
  return [{'target': target, 'metric': analysis.points.metric, 'predicted': float(value[i]), 'factor': float(size[i]),
           'ci95': None if boot is None else law[:, i].tolist(),
           'ci95_run': None if boot is None else run[:, i].tolist()} for i, target in enumerate(targets)]


def asked(groups: dict[str, Analysis]) -> list[dict]:
  """The predictions that the laws of groups hold, of their second metrics too, as rows with their group."""
  return [{**row, 'group': name} for name, group in groups.items()
          for row in (*group.law.get('targets', ()), *group.law.get('then', {}).get('targets', ()))]


def describe(target: Target) -> str:
  """A target in words, such as `params=1e9,examples=1e10`."""
  return ','.join(f'{name}={value:.6g}' for name, value in target.items())
