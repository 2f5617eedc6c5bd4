"""How long a fit, its bootstrap, and the selection of a form in every refit take.

  python experiments/law_speed/speed.py

240 points of a Chinchilla law (Hoffmann et al. 2022's coefficients) with 2% noise; the fit scores 4,500 starts. Then
the whole analysis with --form=auto, of these points and of 240 points of one input, where five forms are tried.
"""

import os
import time

import numpy as np

from vit_jax.scaling import analysis, bootstrap, estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points


def main():
  random = np.random.default_rng(0)
  params, examples = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 16), np.geomspace(1e8, 1e11, 15)))
  columns, noise = {'params': params, 'examples': examples}, np.exp(0.02 * random.standard_normal(240))
  loss = (1.69 + 406.4 * params ** -0.34 + 410.7 * examples ** -0.28) * noise
  print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}; seconds, and of the CPU')
  for name in estimate.OBJECTIVES:
    start = _now()
    fit = estimate.fit('chinchilla', columns, loss, Objective(name))
    middle = _now()
    boot = bootstrap.run(fit, np.arange(240), 1000)
    low, high = boot.interval()['alpha']
    print(f'{name}: fit of {len(loss)} points from {fit.starts} starts {_between(start, middle)}; '
          f'1000 bootstrap refits {_between(middle, _now())} ({boot.failed} without a minimum); '
          f'alpha {fit.coefficients["alpha"]:.4f} [{low:.4f}, {high:.4f}]', flush=True)
  x = np.repeat(np.geomspace(1e5, 1e8, 24), 10)
  for name, inputs, y in (('params and examples', columns, loss),
                          ('one input', {'x': x}, (0.5 + 200 * x ** -0.4) * noise)):
    start, runs = _now(), [f'run {i}' for i in range(240)]
    points = Points('loss', 'examples' if 'x' in inputs else None, y, inputs, runs, np.arange(240),
                    [{'run': run} for run in runs], {})
    found = analysis.analyse(points, analysis.Settings('auto'))
    print(f'auto in {name}: analysis with {len(found.selection.candidates)} candidates and 1000 refits, each with its '
          f'own selection, {_between(start, _now())}; {found.law["form"]}', flush=True)


def _now():
  return time.perf_counter(), time.process_time()


def _between(start, end):
  return f'{end[0] - start[0]:.2f} s ({end[1] - start[1]:.2f} s)'


if __name__ == '__main__':
  main()
