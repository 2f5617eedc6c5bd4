"""A model that was trained here, ready for use.

  model = trained.load('runs/quickstart-bed66b456c')
  probabilities = model(['cat.jpg', 'dog.png'])  # [2, classes], in the order of model.class_names
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vit_jax import checkpoint, records
from vit_jax.data import device, pictures, pipeline, transforms
from vit_jax.errors import UserError, nearest
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import config as run_config
from vit_jax.training import state


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model, its parameters and how its pictures are prepared; a function from pictures to probabilities.

  Attributes:
    config: the RunConfig that it was trained with.
    model: the PureModel.
    params: its parameters; their moving average where the run kept one.
    stats: its statistics (batch norm's).
    class_names: one per class.
    step: the finished steps of the checkpoint.
  """
  config: Any
  model: PureModel
  params: dict
  stats: dict
  class_names: tuple[str, ...]
  step: int

  def __call__(self, images: Sequence[str | os.PathLike | bytes | np.ndarray], batch_size: int = 64) -> np.ndarray:
    """Probabilities float32 [n, classes] of paths, encoded pictures or arrays uint8 [H, W, C].

    Raises:
      pictures.BadPicture: one that cannot be read.
    """
    return self.probabilities([self.prepare(image) for image in images], batch_size)

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """A picture as the run's own evaluation sees it: uint8 [H, W, C]. Raises BadPicture."""
    if isinstance(image, (str, os.PathLike)):
      try:
        image = pathlib.Path(image).read_bytes()
      except OSError as error:
        raise pictures.BadPicture(error.strerror or str(error)) from error
    height, width, channels = self.model.image_shape
    for step in transforms.eval_transforms(self.config.data.augment, (height, width), channels):
      image = step(image, None)
    return image

  def probabilities(self, prepared: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """As `__call__`, of pictures that `prepare` gave; the last batch is padded, so that one program serves all."""
    out = [np.zeros((0, len(self.class_names)), np.float32)]
    for start in range(0, len(prepared), batch_size):
      images = np.stack(prepared[start:start + batch_size])
      padded = np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
      out.append(np.asarray(self._forward(self.params, self.stats, padded))[:len(images)])
    return np.concatenate(out)

  @functools.cached_property
  def _forward(self):
    def forward(params, stats, images):
      return jax.nn.softmax(self.model.apply(params, stats, device.normalize(images))[0], axis=-1)
    return jax.jit(forward)


def load(workdir: os.PathLike, step: int | None = None) -> Trained:
  """The model of a run folder, local or a bucket path, on the first device.

  Args:
    workdir: the folder of `vit_jax.main`.
    step: which checkpoint; None: the one that the run's test score is of, or the newest where it has none.

  Raises:
    UserError: no run there, no checkpoint, not that one, or a damaged one.
  """
  record = records.read_run(workdir)
  if record is None:
    raise UserError(f'{os.fspath(workdir)}: no run there (no {records.RUN}); give the folder that vit_jax.main wrote')
  config, model = run_config.cast(record['config']), model_of(record)
  with contextlib.closing(checkpoint.Checkpoints(workdir, read_only=True)) as checkpoints:
    step = _step(checkpoints.steps(), step, (record.get('results') or {}).get('step'), workdir)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(data=1), jax.local_devices()[:1])
    tree = checkpoints.restore(step, state.to_plain(state.abstract(model, config, mesh)))
  return Trained(config, model, tree['ema'] if config.optimizer.ema_decay else tree['params'], tree['stats'],
                 tuple(record['data']['classes']), step)


def model_of(record: dict[str, Any]) -> PureModel:
  """The model that run.json describes."""
  config, data = run_config.cast(record['config']), record['data']
  shape = data.get('image_shape') or pipeline.open_data(config.data).image_shape  # absent from older runs
  return PureModel(config.family, config.model, tuple(shape), len(data['classes']), Execution())


def _step(there, wanted, scored, workdir):
  if not there:
    raise UserError(f'{os.fspath(workdir)}: no checkpoint yet')
  if wanted is None:
    return scored if scored in there else there[-1]
  if wanted not in there:
    raise UserError(f'{os.fspath(workdir)}: no checkpoint of step {wanted}{nearest(str(wanted), map(str, there))}')
  return wanted
