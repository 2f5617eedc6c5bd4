"""The contract of a model family: what a file in models/ provides, and all that the rest of the program asks of it.

A new family is one file with

1. a frozen dataclass `Config` with a default for every field, among them `dtype` ('float32' or 'bfloat16', of matmuls).
   `config.model` is this class: its fields are the options of a recipe and a part of a run's identity.
2. a model, an `nnx.Module` with the methods of `Model` below, made of `vit_jax.layers`. Its parameters are made by
   `layers.dense.parameter`, mostly through `Dense`, `Conv`, `Mlp` and the norms, and declare their logical axes and
   their role. Sharding, muP, Muon, Adafactor, layer-wise rates and pruning read these; they have no list of families.
   Blocks that repeat are a `layers.stack.Stack`, whose `run` scans, unrolls and recomputes them as `execution` says.
   The residual stream is `parallel.mesh.constrain`ed to be split by 'batch' in each block. Noise is drawn by
   `layers.noise` from the keys of the examples. A module that holds statistics has an attribute `frozen`; if it is set,
   training uses them as evaluation does (`layers.norm.BatchNorm`). Four names are read elsewhere: `patch_embed` is what
   comes before the blocks, `norm` the last norm, `head` the logits' map (a `Dense` of the role 'output', which new
   classes replace), and a list that has one module for each stage is indexed by the stage (`optimisation.layerwise`).
3. `FAMILY = Family(Config, MyModel, ...)`, and its line in `models.FAMILIES`; or, in another package, nothing more:
   `config.defaults('mypkg.mixer:FAMILY')`.

A recipe in configs/ and a test complete it. tests/models/test_conformance.py checks the rest of the contract: give it a
tiny config.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import nnx

from vit_jax.layers.stack import Execution


class Model(Protocol):
  """A family's model. Parameters are float32; logits are float32 too, and zero at the start."""

  def __init__(self, config: Any, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution):
    """Builds it for pictures [H, W, C]. Raises UserError for shapes that it cannot have, naming the field to change."""

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict[str, Any]]:
    """Logits, and what was asked for on the way.

    Args:
      images_BHWC: float32, normalised.
      keys_B: one PRNG key an example: noise acts, and batch norm takes the statistics of the batch (training).
        None: evaluation, in which no example depends on another.
      capture: names of `Family.captures`. Nothing is computed or kept for names that are not asked for.

    Returns:
      Logits [B, C] in float32, and a dict: 'pre_logits' [B, D] and what `capture` names.
    """


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The sequence that an `Encoder` reads: first classified tokens, then others, then a grid's patches.

  Attributes:
    grid: (rows, columns) of the patches.
    classified: how many tokens in front the head reads (CLS); 0: it reads the patches.
  """
  grid: tuple[int, int]
  classified: int


def _unchanged(params, config, image_shape, new_shape):
  return params


@dataclasses.dataclass(frozen=True)
class Family:
  """What the rest of the program needs of a model family; the first three are needed, the others have defaults.

  Attributes:
    config: the class of its config.
    model: the class of its model (`Model`).
    sizes: the published shapes by name: the fields of the config, as a recipe updates `config.model` with them.
    resized: (params, config, image_shape, new_shape) -> params for pictures of another size, numpy arrays both. Raises
      UserError where they belong to one size. By default they are the same for all.
    batch_norm: an example's training depends on the others of its batch, or micro-batch.
    captures: what `capture` can name. 'features' is there for every family: the residual stream after each block
      [L, B, ...], or after each stage, a list of [B, H, W, D].
    honours: those fields of `Execution` besides scan and remat that change how it is run: 'blocks',
      'attention_kernel'. For other families they must be at their defaults.
    tokens: (config, image_shape) -> Tokens, of families whose model is an `Encoder` (named `encoder`) between the
      methods `embed` and `classify` of `models.vit.ViT`: attention maps and token merging look into these. None: it is
      not.
    pruned: (config, {'heads': n, 'mlp': n}) -> the config with so many heads and MLP units in every layer, and heads of
      the size that they had. None: they cannot be taken out.
  """
  config: type
  model: type
  sizes: Mapping[str, dict[str, Any]]
  resized: Callable[[dict, Any, tuple[int, int, int], tuple[int, int, int]], dict] = _unchanged
  batch_norm: bool = False
  captures: tuple[str, ...] = ('features',)
  honours: tuple[str, ...] = ()
  tokens: Callable[[Any, tuple[int, int, int]], Tokens] | None = None
  pruned: Callable[[Any, dict[str, int]], Any] | None = None
