"""The questions of coverage.py: what a law says of a quantity, as (truth, estimate, low, high)."""

import numpy as np
from worlds import World

from vit_jax.scaling import analysis
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

BEYOND = (3, 10, 20)  # times the largest x, or the FLOPs of the largest run
Answers = dict[str, tuple[float, float, float, float]]


def ask(world: World, seed: int) -> dict:
  """One draw of a world: {answers {quantity: (truth, estimate, low, high)}, form, red, p}.

  A quantity that the law does not answer is left out: a coefficient where another form was selected, the valley of a
  budget whose minimum is outside its grid. `red` is whether the calibrated light is.
  """
  random = np.random.default_rng(seed)
  first = _analyse(world, random)
  out = {'answers': _of_law(world, first, random), 'form': first.fit.form.name,
         'red': first.law['lights']['calibrated']['light'] == 'red'}
  if world.saves:
    groups = {'a': first, 'b': _analyse(world, random, world.saves)}
    for row in analysis.multipliers(groups, [('a', 'b')]):
      if 'ci95' in row:
        out['answers']['multiplier'] = (world.saves, row['multiplier'], *row['ci95'])
        out['p'] = row['p']
  return out


def _analyse(world, random, saves=1.0) -> Analysis:
  n = len(next(iter(world.runs.values())))
  trunks = np.arange(n) if world.trunks is None else world.trunks
  log_loss = np.log(world.truth.loss(_saving(world.runs, saves))) + world.sigma * world.noise(random, trunks)
  log_loss += (random.random(n) < world.diverged) * np.log(random.uniform(1.1, 1.8, n))
  names = [f'run {i}' for i in range(n)]
  points = Points('loss', 'examples' if 'x' in world.runs else None, np.exp(log_loss), world.runs, names, np.arange(n),
                  [{'run': name} for name in names], {})
  budget = () if 'x' in world.runs else (10 * _flops(world.runs),)
  return analysis.analyse(points, analysis.Settings(world.form, Objective(world.objective), world.refits,
                                                    int(random.integers(2**31)), budgets=budget))


def _saving(columns, saves):
  """The inputs at which the first group has the losses that the second has at `columns`."""
  longer = 'x' if 'x' in columns else 'examples'
  return columns | {longer: columns[longer] / saves}


def _of_law(world, found, random) -> Answers:
  if not found.boot:
    return {}
  out = {} if world.form == 'auto' else {
      name: (true, found.fit.coefficients[name], *found.boot.interval()[name])
      for name, true in world.truth.coefficients.items()}
  at = _beyond(world.runs)
  true, value, (law, run) = world.truth.loss(at), found.fit.predict(at), found.boot.bands(at)
  new = true * np.exp(world.sigma * world.noise(random, np.arange(len(true))))
  for name, target, band in (('law', true, law), ('run', new, run)):
    out |= {f'{name} at {k}x': tuple(map(float, row)) for k, *row in zip(BEYOND, target, value, *band)}
  return out if 'x' in world.runs else out | _of_frontier(world, found)


def _beyond(runs):
  """The inputs 3, 10 and 20 times beyond: N and D grow alike."""
  power = 1.0 if 'x' in runs else 0.5
  return {name: values.max() * np.array(BEYOND) ** power for name, values in runs.items() if name != 'flops'}


def _of_frontier(world, found) -> Answers:
  optimal, out = found.law['compute_optimal'], {}
  row = optimal['rows'][0]
  out['N* at 10x'] = (_optimum(world, row['flops']), row['params'], *row['params_ci95'])
  valleys = [row for row in found.law['isoflop'] if row['params_ci95']]
  for name, k in (('lowest', 0), ('middle', len(valleys) // 2), ('highest', -1)) if valleys else ():
    out[f'N* of the {name} valley'] = (_optimum(world, valleys[k]['flops']), valleys[k]['params'],
                                       *valleys[k]['params_ci95'])
  if world.misfit:
    return out
  middle = _flops(world.runs) / 100
  slope = float(np.log(_optimum(world, 10 * middle) / _optimum(world, middle / 10)) / np.log(100))
  for name, given in (('N* exponent', optimal['exponents']['params']),
                      ('N* exponent of the valleys', found.law['isoflop_exponent'])):
    if given and given['ci95']:
      out[name] = (slope, given['value'], *given['ci95'])
  return out


def _optimum(world, budget):
  """The true N* of a budget, by search."""
  n = np.exp(np.linspace(np.log(1e4), np.log(1e13), 200_001))
  return float(n[np.argmin(world.truth.loss({'params': n, 'examples': budget / 6 / n}))])


def _flops(runs):
  return float(np.max(6 * runs['params'] * runs['examples']))
