"""Conversion of weights from and to the formats of other programs.

  weights = interop.read('hf:google/vit-base-patch16-224')    # see `sources.read`
"""


def read(source, without=()):
  """See `sources.read`. It is imported lazily, so that using an exported file does not import the model code."""
  from vit_jax.interop import sources
  return sources.read(source, without)
