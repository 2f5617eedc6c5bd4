"""Sweeps: many runs from one file. A sweep file defines get_sweep() with the functions of this module:

  from vit_jax.sweeps import Sweep, axis, product, seeds

  def get_sweep():
    return Sweep('configs/fashion_mnist.py', product(axis('model.depth', 2, 4, 8), seeds(3)))
"""

from vit_jax.sweeps.spec import Sweep, axis, branches, chain, isoflop, product, seeds, zip  # noqa: F401
