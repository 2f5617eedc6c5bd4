"""The teacher of a run: the model of another run, applied to each batch in evaluation mode and without gradient."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import records
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.interop import run_weights
from vit_jax.interop.classifier import class_indices
from vit_jax.models import PureModel
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.transfer.distillation import DistillConfig


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A teacher. Its arrays are loaded when they are needed, and passed to the step beside the state.

  Attributes:
    workdir: its run folder.
    config_hash: the hash of its run.
    model: the PureModel.
    classes: for each class of the student, the index of that class in the teacher.
    digest: tells its arrays from others; None if its checkpoint has none.
  """
  workdir: str
  config_hash: str
  model: PureModel
  classes: tuple[int, ...]
  digest: str | None = None

  def shapes(self, mesh: LogicalMesh) -> dict[str, Any]:
    """Its arrays as ShapeDtypeStructs, sharded over the mesh like those of any model."""
    whole = mesh_lib.sharding(mesh)
    places = {'params': mesh_lib.param_shardings(mesh, self.model.param_shapes(), self.model.param_axes()),
              'stats': jax.tree.map(lambda _: whole, self.model.stats_shapes())}
    shapes = {'params': self.model.param_shapes(), 'stats': self.model.stats_shapes()}
    return jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, places)

  def arrays(self, mesh: LogicalMesh) -> dict[str, Any]:
    """Its arrays, sharded as in `shapes`."""
    loaded = run_weights.read(self.workdir)
    put = lambda array, shape: jax.make_array_from_callback(shape.shape, shape.sharding, np.asarray(array).__getitem__)
    return jax.tree.map(put, {'params': loaded.params, 'stats': loaded.stats}, self.shapes(mesh))

  def __call__(self, arrays: dict[str, Any], images_BHWC: jax.Array) -> jax.Array:
    """Logits [B, C] for the student's classes, on the student's normalised pictures, resized to the teacher's size."""
    B, H, W, channels = images_BHWC.shape
    size = self.model.image_shape[:2]
    if (H, W) != size:
      images_BHWC = jax.image.resize(images_BHWC, (B, *size, channels), 'bilinear')
    logits_BC, _, _ = self.model.apply(arrays['params'], arrays['stats'], images_BHWC)
    return jax.lax.stop_gradient(jnp.take(logits_BC, jnp.asarray(self.classes), axis=1))


def resolve(config: Any) -> Any:
  """A RunConfig with the digest of its teacher; without a teacher it is returned unchanged.

  Raises:
    UserError: there is no finished run, or one with another digest than `distill.digest`.
  """
  given = config.distill
  if given.teacher is None:
    return config
  digest = run_weights.digest(given.teacher, _finished(given.teacher))
  if given.digest not in (None, digest):
    raise UserError(f'distill.teacher={given.teacher}: expected a teacher with distill.digest={given.digest}, got '
                    f'{digest}')
  return dataclasses.replace(config, distill=dataclasses.replace(given, digest=digest))


def find(config: DistillConfig, class_names: tuple[str, ...], image_shape: tuple[int, int, int],
         data: DataConfig) -> Teacher:
  """The teacher of a resolved config, checked against the student's data; no arrays are loaded.

  Raises:
    UserError: there is no finished run, the teacher does not know a class, or channels or scaling differ.
  """
  workdir = config.teacher
  record = _finished(workdir)
  model = run_weights.model_of(record)
  classes = class_indices(record['data']['classes'], class_names, f'distill.teacher={workdir}: it')
  if model.image_shape[2] != image_shape[2]:
    raise UserError(f'distill.teacher={workdir}: it was trained on pictures with {model.image_shape[2]} channels, but '
                    f'these have {image_shape[2]}; set data.channels')
  scales = [[list(c.get(name) or (0.5,)) for name in ('mean', 'std')] for c in (record['config']['data'], vars(data))]
  if scales[0] != scales[1]:
    raise UserError(f'distill.teacher={workdir}: its pictures are normalised with mean and std {scales[0]}, but these '
                    f'with {scales[1]}; set data.mean and data.std to the same values')
  return Teacher(workdir, record['config_hash'], model, classes, config.digest)


def of_any_classes(workdir: str, num_classes: int) -> Teacher:
  """The teacher of a run that is only planned. Its first classes are used, as the student's classes are unknown."""
  record = _finished(workdir)
  model = run_weights.model_of(record)
  return Teacher(workdir, record['config_hash'], model, tuple(i % model.num_classes for i in range(num_classes)))


def _finished(workdir):
  record = records.read_run(workdir)
  if record is None or not record.get('results'):
    raise UserError(f'distill.teacher={workdir}: no finished run there; train the teacher first')
  if not run_weights.is_classifier(record):
    raise UserError(f'distill.teacher={workdir}: it was trained with objective={record["config"]["objective"]}; a '
                    'teacher is a classifier, such as a run that was fine-tuned from it')
  return record
