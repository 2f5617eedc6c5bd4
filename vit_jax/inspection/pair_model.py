"""A trained model of two towers, loaded for use: which text fits a picture, and which picture a text."""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from vit_jax import schema
from vit_jax.data import text as text_lib
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.inspection import names as names_lib
from vit_jax.inspection import own_model
from vit_jax.interop import pairs as pairs_lib
from vit_jax.interop import sources
from vit_jax.interop.classifier import Classifier
from vit_jax.models import PureModel
from vit_jax.objectives import contrast
from vit_jax.objectives.contrast import Contrast
from vit_jax.objectives.zero_shot import Embedder
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.transfer import pretrained


@dataclasses.dataclass(frozen=True)
class PairModel:
  """A model of objective=contrast.

  Attributes:
    embedder: its towers.
    preprocessing: how a picture becomes an input.
    digest: names its weights.
  """
  embedder: Embedder
  preprocessing: Preprocessing
  digest: str

  @property
  def objective(self) -> Contrast:
    return self.embedder.model.objective

  def probabilities(self, images_NE: np.ndarray, texts_CE: np.ndarray) -> np.ndarray:
    """[N, C] from embeddings: how likely each pair is one by itself (name=sigmoid), or among the texts (softmax)."""
    params = self.embedder.params
    scale, bias = (float(x) for x in self.objective.scale_and_bias(params['log_scale'], params.get('bias')))
    logits_NC = scale * images_NE @ texts_CE.T + bias
    if self.objective.config.name == 'sigmoid':
      return np.asarray(jax.nn.sigmoid(logits_NC))
    return np.asarray(jax.nn.softmax(logits_NC, axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByName(Classifier):
  """A classifier whose classes are any names.

  Attributes:
    pairs: the model.
    names_CE: the embedding of each name.
  """
  pairs: PairModel
  names_CE: np.ndarray

  def forward(self, images_BHWC):
    return self.pairs.probabilities(self.pairs.embedder.images(images_BHWC), self.names_CE)


def load(place: str | os.PathLike, step: int | None = None) -> PairModel:
  """The model of a run of objective=contrast, or of another program's files of both towers.

  Args:
    place: a run folder, or what `sources.read_pairs` reads.
    step: the step of a run's checkpoint; None: the one that was scored on test.

  Raises:
    UserError: it is no such run, has no checkpoint, or its tokenizer is not there.
  """
  if not sources.is_run(place) and step is None:
    return _of_files(sources.read_pairs(place))
  own = own_model.load(place, step, 'contrast')
  params, stats = jax.device_put((own.weights.params, own.weights.stats), jax.local_devices()[0])
  preprocessing = own.weights.preprocessing
  embedder = Embedder(own.model, params, stats, own_model.tokenizer(place, own.config), preprocessing.normalize,
                      mesh_lib.single_device())
  return PairModel(embedder, preprocessing, pretrained.digest(own.weights))


def _of_files(found):
  """The model that `sources.read_pairs` has read."""
  vocabulary = found.vocabulary
  text = text_lib.TextConfig(vocabulary.file or 'clip', found.length)
  objective = contrast.Contrast(schema.cast(contrast.Config, found.loss, 'loss'), text)
  model = PureModel(found.image.family, found.image.config, found.image.image_shape, 0, objective=objective)
  weights = dataclasses.replace(found.image, params=found.params(model.param_shapes()))
  plain = text_lib.tokenizer(text, list)
  tokenizer = dataclasses.replace(
      plain, pad=pairs_lib.pad_number(vocabulary, plain.end),
      ids=lambda texts: plain.ids(list(map(vocabulary.clean, texts))))
  params = jax.device_put(weights.params, jax.local_devices()[0])
  embedder = Embedder(model, params, {}, tokenizer, weights.preprocessing.normalize, mesh_lib.single_device())
  return PairModel(embedder, weights.preprocessing, pretrained.digest(weights))


def by_name(pairs: PairModel, names: Sequence[str], templates: Sequence[str] | None = None) -> ByName:
  """The model as a classifier of these names; templates are texts with {} in the place of a name, by default the run's.

  Raises:
    UserError: fewer than two names, one twice, or a template without {}.
  """
  templates = templates or pairs.objective.config.templates
  names_lib.check(names, templates)
  return ByName(class_names=tuple(names), preprocessing=pairs.preprocessing, pairs=pairs,
                names_CE=pairs.embedder.names(names, templates))
