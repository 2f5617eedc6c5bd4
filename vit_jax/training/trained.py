"""A trained model, loaded for use from a run, a bundle, another program's weights or an exported file.

  model = trained.load('runs/quickstart-bed66b456c')
  probabilities = model(['cat.jpg', 'dog.png'])  # [2, classes], in the order of model.class_names
"""

import dataclasses
import functools
import os
from typing import Any

import jax

from vit_jax import commands, objectives, records
from vit_jax.errors import UserError
from vit_jax.interop import exported, sources
from vit_jax.interop.classifier import Classifier, as_probabilities
from vit_jax.models import PureModel
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import config as run_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained(Classifier):
  """A model with its parameters and preprocessing: a function from pictures to probabilities.

  Attributes:
    model: the PureModel.
    params: its parameters, or their moving average if the run kept one.
    stats: its statistics (of batch norm).
    config: the RunConfig that it was trained with; None if it does not come from a run.
    step: the finished steps of its checkpoint; None if it does not come from a run.
  """
  model: PureModel
  params: dict
  stats: dict
  config: Any = None
  step: int | None = None

  def forward(self, images_BHWC):
    return self._forward(self.params, self.stats, images_BHWC)

  @functools.cached_property
  def _forward(self):
    def forward(params, stats, images):
      logits_BC = self.model.apply(params, stats, self.preprocessing.normalize(images))[0]
      return as_probabilities(logits_BC, self.several_labels, self.temperature)
    return jax.jit(mesh_lib.traced_on(mesh_lib.single_device(), forward))  # so that it has its devices' kernels


def load(source: str | os.PathLike, step: int | None = None) -> Classifier:
  """Loads a model from a run folder, an exported file or anything else that `interop.sources.read` reads.

  Args:
    source: a run folder of `vit_jax.main`, local or a bucket path; a bundle; a .stablehlo file; and so on.
    step: the step of a run's checkpoint; None: the one that its test score is of, or the newest if it has no score.

  Returns:
    A `Trained`. For a .stablehlo file an `Exported`, whose parameters cannot be accessed.

  Raises:
    UserError: there is nothing at `source`, no such checkpoint, a damaged one, or a backbone without a head.
  """
  if exported.is_exported(source):
    return exported.read(source)
  weights = sources.read(source, step=step)
  config = run_config.cast(records.read_run(source)['config']) if sources.is_run(source) else None
  if weights.headless and config is not None and (use := objectives.objective(config.objective).use):
    raise UserError(f'{os.fspath(source)}: expected a classifier, got a run of objective={config.objective}, which is '
                    f'for {commands.written("predict", f"RUN PICTURE_OR_FOLDER... {use}")}; to classify, fine-tune it')
  put = lambda tree: jax.device_put(tree, jax.local_devices()[0])
  return Trained(class_names=weights.names(), preprocessing=weights.preprocessing, model=weights.pure_model(),
                 params=put(weights.params), stats=put(weights.stats), config=config, step=weights.step,
                 several_labels=weights.several_labels, temperature=weights.temperature)
