"""A model of two towers in use: pictures and texts become embeddings, and classes are told by their names."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.models import PureModel
from vit_jax.objectives import pair_scores
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh

_BATCH = 64  # texts or pictures computed at a time


class Towers:
  """Embeddings of pictures and texts, a batch at a time. Subclasses have a tokenizer and implement `embed`."""
  tokenizer: Any
  batch_size: int = _BATCH

  def embed(self, tower: str, rows: np.ndarray) -> np.ndarray:
    """`batch_size` embeddings of unit length [B, E], by 'image' of uint8 [B, H, W, C] or by 'text' of int32 [B, T]."""
    raise NotImplementedError

  def texts(self, texts: Sequence[str]) -> np.ndarray:
    """Embeddings of unit length, float32 [N, E]."""
    return self._embedded('text', self.tokenizer.encode(list(texts)))

  def images(self, images_NHWC: np.ndarray) -> np.ndarray:
    """The same of prepared pictures, uint8."""
    return self._embedded('image', np.asarray(images_NHWC))

  def names(self, names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """One embedding of each name [N, E]: the mean over the templates (Radford et al. 2021, sec. 3.1.4)."""
    every = self.texts([template.replace('{}', name) for name in names for template in templates])
    mean_NE = every.reshape(len(names), len(templates), -1).mean(axis=1)
    return mean_NE / np.maximum(np.linalg.norm(mean_NE, axis=1, keepdims=True), np.float32(1e-12))

  def _embedded(self, tower, rows):
    out, size = [], self.batch_size
    for start in range(0, max(len(rows), 1), size):  # of no rows the width is asked
      some = rows[start:start + size]
      padded = np.pad(some, [(0, size - len(some))] + [(0, 0)] * (rows.ndim - 1))
      out.append(np.asarray(self.embed(tower, padded))[:len(some)])
    return np.concatenate(out)


@dataclasses.dataclass(frozen=True)
class Embedder(Towers):
  """The two towers of a model of objective=contrast.

  Attributes:
    model: the model.
    params, stats: its parameters and statistics.
    tokenizer: makes tokens of texts.
    normalize: uint8 [B, H, W, C] -> float32.
    mesh: where the parameters are.
  """
  model: PureModel
  params: dict
  stats: dict
  tokenizer: Any
  normalize: Callable
  mesh: LogicalMesh

  @property
  def batch_size(self) -> int:
    return math.lcm(_BATCH, mesh_lib.batch_shards(self.mesh))

  def embed(self, tower, rows):
    return _tower(self.model, self.normalize, self.mesh, tower)(self.params, self.stats, rows)


@functools.lru_cache(maxsize=4)
def _tower(model, normalize, mesh, kind):
  objective = model.objective

  def forward(params, stats, rows):
    embed = (lambda module: objective.embed_texts(module, rows)) if kind == 'text' else (
        lambda module: objective.embed_images(module, normalize(rows)))
    return model.call(params, stats, embed)[0]

  return jax.jit(mesh_lib.traced_on(mesh, forward), out_shardings=mesh_lib.sharding(mesh))


def scores(run: Any, params: dict, stats: dict, split: str, kept: dict) -> dict[str, float]:
  """An evaluator (`Objective.evaluators`): how many pictures are nearest to the name of their class.

  Without one class for each picture there are no columns.
  """
  data, count = run.data, len(kept['weight'])
  if not has_one_class_each(data):
    return {}
  embedder = Embedder(run.model, params, stats, data.tokenizer, _unchanged, run.mesh)
  classes_CE = embedder.names(data.class_names, run.objective.config.templates)
  real = kept['weight'] > 0
  return pair_scores.zero_shot(kept['image'][real], data.labels(split)[:count][real], classes_CE)


def has_one_class_each(data: Any) -> bool:
  """Whether `pipeline.Data` has classes, and one for each picture."""
  return data.num_classes > 1 and not data.several_labels


def _unchanged(images):
  return images
