"""The job that is planned: a run without its devices and without its data set."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax import objectives, tracking
from vit_jax.cost import flops
from vit_jax.cost.gpus import Target
from vit_jax.data import config as data_config
from vit_jax.data import pipeline, splits
from vit_jax.errors import UserError
from vit_jax.layers import kernels, stack
from vit_jax.models import PureModel
from vit_jax.objectives.objective import Objective
from vit_jax.optimisation import schedule, trainable
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.parallel.rules import AXES
from vit_jax.training import config as run_config
from vit_jax.training import microbatches, state
from vit_jax.training import run as run_lib
from vit_jax.training.config import RunConfig
from vit_jax.transfer import pretrained
from vit_jax.transfer import teacher as teacher_lib

# Published numbers of training examples of data sets that are too large for a laptop.
_EXAMPLES = {'imagenet2012': 1_281_167, 'imagenet21k': 14_197_122}


@dataclasses.dataclass(frozen=True)
class Choice:
  """How a run is executed; the search chooses among these."""
  sizes: tuple[int, ...]  # of the mesh, along AXES
  remat: str
  microbatches: int

  def __str__(self):
    mesh = ' '.join(f'{axis}={size}' for axis, size in zip(AXES, self.sizes))
    return f'{mesh}, remat={self.remat}, {self.microbatches} micro-batch{"es" if self.microbatches > 1 else ""}'

  def flags(self) -> str:
    """The flags with which `main` executes a run so."""
    mesh = [f'--config.system.mesh.{axis}={size}' for axis, size in zip(AXES, self.sizes)]
    return ' '.join([*mesh, f'--config.system.execution.remat={self.remat}',
                     f'--config.system.microbatches={self.microbatches}'])


@dataclasses.dataclass(frozen=True)
class Job:
  """A run whose data need not be present.

  Attributes:
    config: its resolved config.
    image_shape: (H, W, C) of its pictures.
    num_classes: the number of classes.
    examples: the number of training examples; None if not known.
  """
  config: RunConfig
  image_shape: tuple[int, int, int]
  num_classes: int
  examples: int | None

  def with_choice(self, choice: Choice) -> RunConfig:
    """The config with `choice` filled in."""
    system = self.config.system
    return dataclasses.replace(self.config, system=dataclasses.replace(
        system, mesh=MeshConfig(**dict(zip(AXES, choice.sizes)), rules=system.mesh.rules),
        microbatches=choice.microbatches,
        execution=dataclasses.replace(system.execution, remat=choice.remat)))

  @functools.cached_property
  def model(self) -> PureModel:
    """The model without rematerialisation."""
    return self._model('none')

  def _model(self, remat):
    execution = dataclasses.replace(self.config.system.execution, remat=remat)
    return PureModel(self.config.family, self.config.model, self.image_shape, self.num_classes, execution,
                     self.objective)

  @functools.cached_property
  def objective(self) -> Objective:
    """What the model is trained for."""
    return objectives.of(self.config)

  def kernel(self, platform: str) -> tuple[str, str] | tuple[None, None]:
    """(the name of the kernel, why) of its attention on 'cpu', 'gpu' or 'tpu'; None, None without any."""
    config, execution, tokens = self.config.model, self.config.system.execution, self.model.tokens
    if tokens is None:
      return None, None
    if self.objective.masked:
      return kernels.PLAIN, f'{kernels.KERNELS[kernels.PLAIN].what}; no other computes the mask of its objective'
    request = kernels.Request.of(config, tokens, config.pos_embed, execution.blocks)
    return kernels.choose(execution.attention_kernel, request, platform)

  def microbatches(self, sizes: tuple[int, ...], target: Target) -> tuple[int, str]:
    """(the number of micro-batches, why) of its steps on a mesh of these sizes."""
    if asked := self.config.system.microbatches:
      return asked, 'as configured'
    mesh = mesh_lib.abstract_mesh(sizes, self.config.system.mesh.rules)
    return microbatches.chosen(self.config, self.model, mesh, target.platform, target.chip)

  def stacks(self, platform: str) -> dict[int, bool]:
    """{number of layers: whether they are scanned there} of its stacks."""
    axes = jax.tree.leaves(self.model.param_axes(), is_leaf=lambda x: isinstance(x, tuple))
    shapes = jax.tree.leaves(self.model.param_shapes())
    depths = sorted({shape.shape[0] for shape, names in zip(shapes, axes, strict=True) if names[:1] == ('layers',)})
    return {depth: stack.scanned(self.config.system.execution.scan, depth, platform) for depth in depths}

  @functools.cached_property
  def params(self) -> int:
    return flops.params(self.model)[0]

  @functools.cached_property
  def flops_per_image(self) -> tuple[int, int]:
    """FLOPs per image (forward, training), without recomputation."""
    return flops.per_example(self.model, trainable.freezer(self.config.optimizer, self.model))

  @functools.cached_property
  def teacher(self) -> teacher_lib.Teacher | None:
    """The teacher of a distilled model."""
    workdir = self.config.distill.teacher
    return None if workdir is None else teacher_lib.of_any_classes(workdir, self.num_classes)

  @functools.cached_property
  def spent_per_image(self) -> int:
    """FLOPs per image in training, including the teacher's forward pass, without recomputation."""
    if not self.teacher:
      return self.flops_per_image[1]
    arrays = {'params': self.teacher.model.param_shapes(), 'stats': self.teacher.model.stats_shapes()}
    image = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
    return self.flops_per_image[1] + flops.count(self.teacher, arrays, image)

  @functools.cache  # noqa: B019 (there are few jobs, and they last as long as the program)
  def executed_flops(self, remat: str, microbatches: int = 1) -> int:
    """`spent_per_image` plus the FLOPs that `remat` recomputes, and those of a first pass over micro-batches."""
    model = self._model(remat)
    trained = flops.per_example(model, trainable.freezer(self.config.optimizer, model))[1]
    twice = self._flops_ahead if self.objective.whole_batch and microbatches > 1 else 0
    return trained + twice + self.spent_per_image - self.flops_per_image[1]

  @property
  def _flops_ahead(self) -> int:
    """FLOPs per image of the first pass over micro-batches, which computes what the loss needs of all of them."""
    names = self.objective.of_all()
    if names is None:
      return self.flops_per_image[0]
    return sum(self.objective.parts(self.model)[name][1] for name in names)

  def recomputed_share(self, remat: str, microbatches: int = 1) -> float:
    """The share of matmul FLOPs that these add: (executed - without them) / without them."""
    return self.executed_flops(remat, microbatches) / self.spent_per_image - 1

  @functools.cached_property
  def steps(self) -> int | None:
    """The steps of the run; None if the length is in epochs of a data set of unknown size."""
    if self.examples is None and self.config.train.epochs:
      return None
    steps = schedule.num_steps(self.config.train, self.config.data.batch_size, self.examples or 0,
                               self.flops_per_image[1])
    schedule.check(self.config.schedule, steps)
    return steps

  @property
  def size(self) -> tuple[int, int | None, int]:
    """(parameters, steps, FLOPs per image including a teacher's)."""
    return self.params, self.steps, self.spent_per_image

  @property
  def schedule_steps(self) -> int:
    """A length for the schedule. It is a constant in the compiled program and changes nothing else about it."""
    return self.steps or 2 * self.config.schedule.warmup_steps + 1

  @functools.cache  # noqa: B019
  def kept_per_image(self, remat: str, platform: str = 'tpu') -> int:
    """Bytes per image that scanned blocks keep there for the backward pass, without padding.

    The compiler makes about as much of blocks that are not scanned.
    """
    # The part that does not grow with the batch is parameters.
    return self._kept(2, remat, platform) - self._kept(1, remat, platform)

  def _kept(self, batch, remat, platform):
    scanned = dataclasses.replace(self.config.system.execution, remat=remat, scan=True)
    objective = self.objective
    model = PureModel(self.config.family, self.config.model, self.image_shape, self.num_classes, scanned, objective)

    def loss(params, stats, batch, keys_B):
      outputs, _ = model.call(params, stats, lambda module: objective.forward(module, batch, keys_B))
      return jnp.sum(objective.loss(outputs, batch)[objective.values[0]])

    def residuals(params, *inputs):
      return jax.vjp(lambda params: loss(params, *inputs), params)[1]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    on_one = mesh_lib.traced_on(mesh_lib.abstract_mesh((1, 1, 1), self.config.system.mesh.rules), residuals)
    with mesh_lib.tracing_for(platform):
      kept = jax.eval_shape(on_one, model.param_shapes(), model.stats_shapes(), objective.prepared(model, batch), keys)
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(kept)
               if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key))

  @functools.cached_property
  def state_shapes(self) -> state.TrainState:
    return state.shapes(self.model, self.config)


def open_job(config: RunConfig) -> Job:
  """A run to be planned. The data set is opened only where the config does not say what its pictures are like.

  Raises:
    UserError: what `run.prepare` would refuse, as far as it can be seen without data and devices.
  """
  run_config.check(config)
  tracking.check(config.system.track)
  config = pretrained.resolve(config)
  reads_text = 'text' in objectives.of(config).inputs((1, 1, 3))
  job = Job(config, *_data_shape(data_config.unbatched(config.data), not reads_text))
  data_config.check_pictures(config.data, job.image_shape[:2], job.image_shape[2])
  job.model, job.steps, job.teacher  # noqa: B018 (they are checked as they are made)
  run_lib.check_model(config, job.model, mesh=None)
  return job


def choices_on(job: Job, target: Target) -> list[Choice]:
  """What the config chooses on this target, checked as a run checks it: of these a run takes the first that fits.

  Raises:
    UserError: sizes that do not multiply up, or that do not divide the batch or a parameter.
  """
  system = job.config.system
  sizes = mesh_lib.mesh_sizes(system.mesh, target.devices, f'devices of {target}')
  tried = stack.tried(system.execution.remat, target.platform)
  choices = [Choice(sizes, remat, system.microbatches or 1) for remat in tried]
  check(job, target, choices[0])
  number, _ = job.microbatches(sizes, target)
  return [dataclasses.replace(choice, microbatches=number) for choice in choices]


def check(job: Job, target: Target, choice: Choice) -> None:
  """Raises UserError for a choice that a run would refuse on this target."""
  if target.platform == 'tpu':
    mesh_lib.check_slices(choice.sizes, target.count)
  mesh = mesh_lib.abstract_mesh(choice.sizes, job.config.system.mesh.rules)
  run_lib.check_batches(job.with_choice(choice), mesh)
  run_lib.check_model(job.config, job.model, mesh)


@functools.cache  # the runs of a sweep share their data
def _data_shape(config, with_classes) -> tuple[Any, ...]:
  """((H, W, C), classes, training examples or None); pictures with texts may have no classes."""
  kind, _, name = config.source.partition(':')
  absent = kind in ('tfds', 'folder', 'pairs', 'idx')
  if not absent or not config.image_size or (with_classes and not config.num_classes):
    try:
      data = pipeline.open_data(config)
    except UserError as error:
      hint = '\nTo plan without the data, set data.image_size and data.num_classes' if absent else ''
      raise UserError(f'{error}{hint}') from error
    return data.image_shape, data.num_classes, data.unique_examples
  examples = config.unique_examples or None
  if whole := _EXAMPLES.get(name.partition(':')[0].partition('/')[0]):
    default = min(round(splits.VAL_FRACTION * whole), splits.VAL_MAX)
    examples = splits.left_for_training(whole, default if config.val_examples is None else config.val_examples,
                                        config.unique_examples)
  return (*config.image_size, config.channels or 3), config.num_classes or 0, examples
