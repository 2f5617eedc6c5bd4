"""Weights in and out: other programs' files by our names, and ours by theirs.

  weights = interop.read('hf:google/vit-base-patch16-224')    see `sources.read`
"""


def read(source, without=()):
  """`sources.read`, imported when it is called: whoever uses an exported file alone needs no code of models."""
  from vit_jax.interop import sources
  return sources.read(source, without)
