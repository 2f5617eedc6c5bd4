"""How long a fit and its bootstrap take.

  python experiments/law_speed/speed.py

240 points of a Chinchilla law (Hoffmann et al. 2022's coefficients) with 2% noise; the fit scores 4,500 starts.
"""

import os
import time

import numpy as np

from vit_jax.scaling import bootstrap, estimate
from vit_jax.scaling.minimize import Objective


def main():
  random = np.random.default_rng(0)
  params, examples = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 16), np.geomspace(1e8, 1e11, 15)))
  columns = {'params': params, 'examples': examples}
  loss = (1.69 + 406.4 * params ** -0.34 + 410.7 * examples ** -0.28) * np.exp(0.02 * random.standard_normal(240))
  print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}')
  for name in estimate.OBJECTIVES:
    start = time.perf_counter()
    fit = estimate.fit('chinchilla', columns, loss, Objective(name))
    middle = time.perf_counter()
    boot = bootstrap.run(fit, np.arange(240), 1000)
    end = time.perf_counter()
    low, high = boot.interval()['alpha']
    print(f'{name}: fit of {len(loss)} points from {fit.starts} starts {middle - start:.2f} s; '
          f'1000 bootstrap refits {end - middle:.2f} s ({boot.failed} without a minimum); '
          f'alpha {fit.coefficients["alpha"]:.4f} [{low:.4f}, {high:.4f}]')


if __name__ == '__main__':
  main()
