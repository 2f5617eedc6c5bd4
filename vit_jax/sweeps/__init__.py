"""Many runs from one file: what a sweep file is written with.

  from vit_jax.sweeps import Sweep, axis, product, seeds

  def get_sweep():
    return Sweep('configs/fashion_mnist.py', product(axis('model.depth', 2, 4, 8), seeds(3)))
"""

from vit_jax.sweeps.spec import Sweep, axis, branches, chain, isoflop, product, seeds, zip  # noqa: F401
