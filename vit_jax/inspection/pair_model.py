"""A trained model of two towers, loaded for use: which text fits a picture, and which picture a text."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.data import listing, pipeline
from vit_jax.data import text as text_lib
from vit_jax.data.config import DataConfig
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.inspection import names as names_lib
from vit_jax.inspection import own_model
from vit_jax.interop import exported, exported_pairs, run_weights, sources
from vit_jax.interop.classifier import Classifier
from vit_jax.objectives import pair_weights
from vit_jax.objectives.zero_shot import Embedder, Towers
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.transfer import pretrained


@dataclasses.dataclass(frozen=True)
class PairModel:
  """A model of pictures and texts.

  Attributes:
    embedder: its towers.
    preprocessing: how a picture becomes an input.
    digest: names its weights.
    loss: 'sigmoid' or 'softmax', for which it was trained.
    scale, bias: of its logits.
    templates: texts about a name, with {} in its place.
  """
  embedder: Towers
  preprocessing: Preprocessing
  digest: str
  loss: str
  scale: float
  bias: float
  templates: tuple[str, ...]

  def probabilities(self, images_NE: np.ndarray, texts_CE: np.ndarray, one_each: bool = False) -> np.ndarray:
    """[N, C] from embeddings: how likely each pair is one by itself (loss=sigmoid), or among the texts (softmax).

    With `one_each`, each picture is known to have one of the texts: it is among the texts for both losses.
    """
    logits_NC = self.scale * images_NE @ texts_CE.T + self.bias
    if self.loss == 'sigmoid' and not one_each:
      return np.asarray(jax.nn.sigmoid(logits_NC))
    return np.asarray(jax.nn.softmax(logits_NC, axis=1))


@dataclasses.dataclass(frozen=True)
class _FromFile(Towers):
  """The towers of an exported file."""
  found: exported_pairs.ExportedPairs

  @property
  def tokenizer(self):
    return self.found.tokenizer

  def embed(self, tower, rows):
    return self.found.embed(tower, rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByName(Classifier):
  """A classifier whose classes are any names.

  Attributes:
    pairs: the model.
    names_CE: the embedding of each name.
    one_each: whether each picture is known to have one of the names.
    config: the RunConfig that it was trained with; None if that is not of use.
    step: the finished steps of its checkpoint, with its config.
  """
  pairs: PairModel
  names_CE: np.ndarray
  one_each: bool = False
  config: Any = None
  step: int | None = None

  def forward(self, images_BHWC):
    return self.pairs.probabilities(self.pairs.embedder.images(images_BHWC), self.names_CE, self.one_each)


def load(place: str | os.PathLike, step: int | None = None) -> PairModel:
  """The model of a run of objective=contrast, of another program's files of both towers, or of an exported file.

  Args:
    place: a run folder, what `sources.read_pairs` reads, or a file of `export`.
    step: the step of a run's checkpoint; None: the one that was scored on test.

  Raises:
    UserError: it is no such run, has no checkpoint, or its tokenizer is not there.
  """
  if exported.is_exported(place) and step is None:
    found = exported_pairs.read(place)
    about = found.about
    return PairModel(_FromFile(found), found.preprocessing, found.digest, about.loss, about.scale, about.bias,
                     about.templates)
  if not sources.is_run(place) and step is None:
    return _of_files(pair_weights.of_files(sources.read_pairs(place)))
  return _of_run(place, own_model.load(place, step, 'contrast'))


def _of_run(place, own):
  params, stats = jax.device_put((own.weights.params, own.weights.stats), jax.local_devices()[0])
  preprocessing = own.weights.preprocessing
  embedder = Embedder(own.model, params, stats, own_model.tokenizer(place, own.config), preprocessing.normalize,
                      mesh_lib.single_device())
  return _complete(embedder, preprocessing, own.weights)


def _complete(embedder, preprocessing, weights):
  objective, params = embedder.model.objective, embedder.params
  scale, bias = (float(x) for x in objective.scale_and_bias(params['log_scale'], params.get('bias')))
  return PairModel(embedder, preprocessing, pretrained.digest(weights), objective.config.name, scale, bias,
                   objective.config.templates)


def export(place: str | os.PathLike, out: str | os.PathLike, step: int | None = None) -> int:
  """Writes both towers of a run as one file that needs no model code (`interop.exported_pairs`).

  Returns the number of parameters. Raises UserError as `load` does.
  """
  own = own_model.load(place, step, 'contrast')
  pairs, model, normalize = _of_run(place, own), own.model, own.weights.preprocessing.normalize
  call = lambda arrays, embed: model.call(*arrays, embed)[0]
  towers = {
      'image': lambda arrays, rows: call(arrays, lambda m: model.objective.embed_images(m, normalize(rows))),
      'text': lambda arrays, rows: call(arrays, lambda m: model.objective.embed_texts(m, rows))}
  text = own.config.data.text
  file = None if text.tokenizer in exported_pairs.WITHOUT_FILE else (
      run_weights.tokenizer_file(place, text.tokenizer) or os.path.expanduser(text.tokenizer))
  about = exported_pairs.About(pairs.loss, pairs.scale, pairs.bias, pairs.templates, text.length,
                               exported_pairs.entry_of(text.tokenizer), text.clean, text.pad)
  exported_pairs.write(out, (own.weights.params, own.weights.stats), towers, model.image_shape,
                       own.weights.preprocessing, about, None if file is None else listing.read(file))
  return own.weights.size


def _of_files(found):
  """The model that `pair_weights.of_files` has read."""
  weights, model = found.weights, pair_weights.model_of(found)
  params = jax.device_put(weights.params, jax.local_devices()[0])
  embedder = Embedder(model, params, {}, text_lib.tokenizer(found.text, list), weights.preprocessing.normalize,
                      mesh_lib.single_device())
  return _complete(embedder, weights.preprocessing, weights)


def by_name(pairs: PairModel, names: Sequence[str], templates: Sequence[str] | None = None) -> ByName:
  """The model as a classifier of these names; templates are texts with {} in the place of a name, by default the run's.

  Raises:
    UserError: fewer than two names, one twice, or a template without {}.
  """
  templates = templates or pairs.templates
  names_lib.check(names, templates)
  return ByName(class_names=tuple(names), preprocessing=pairs.preprocessing, pairs=pairs,
                names_CE=pairs.embedder.names(names, templates))


def of_classes(place: str | os.PathLike, config: DataConfig | None = None) -> ByName:
  """A run as a classifier of the classes of its data, or of other data, which are told by their names.

  Raises:
    UserError: what `load` raises, or the data have no classes.
  """
  own = own_model.load(place, None, 'contrast')
  shape = own.weights.preprocessing
  config = dataclasses.replace(config or own.config.data, image_size=tuple(shape.size), channels=shape.channels)
  names = pipeline.open_data(config, to_train=False).class_names
  if len(names) < 2:
    raise UserError(f"{os.fspath(place)}: its data ({config.source}) have no classes to be told; use predict "
                    "--names='a cat,a dog', or give other data with --config")
  found = by_name(_of_run(place, own), names)
  return dataclasses.replace(found, one_each=True, config=own.config, step=own.weights.step)
