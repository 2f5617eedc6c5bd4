"""A run before its first step: everything that can be decided, checked and said without compiling."""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from vit_jax import models, objectives, provenance, schema, tracking
from vit_jax.cost import flops, hardware
from vit_jax.data import pipeline, sources
from vit_jax.errors import UserError
from vit_jax.layers import kernels, stack
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel
from vit_jax.objectives.objective import Metric, Objective
from vit_jax.optimisation import parametrisation, schedule, trainable
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.parallel import blocks, processes
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.survival.saving import Due
from vit_jax.training import branch, evaluate, microbatches
from vit_jax.training import config as run_config
from vit_jax.training.config import RunConfig, run_hash
from vit_jax.transfer import given
from vit_jax.transfer import pretrained as pretrained_lib
from vit_jax.transfer import teacher as teacher_lib


@dataclasses.dataclass(frozen=True)
class Run:
  """A checked run: its config, data, model, mesh and length."""
  config: RunConfig
  data: Any  # pipeline.Data
  model: PureModel
  mesh: LogicalMesh
  steps: int
  params: int
  params_non_embedding: int
  flops_per_example_forward: int
  flops_per_example_train: int  # of the model; a teacher's are not counted
  teacher: teacher_lib.Teacher | None = None
  pretrained: pretrained_lib.Pretrained | None = None  # where it starts
  branch_steps: tuple[int, ...] = ()  # of a trunk: where branches begin, so that these checkpoints are kept

  @property
  def config_hash(self) -> str:
    return branch.trunk_hash(self.config) if self.branch_steps else run_hash(self.config)

  @functools.cached_property
  def code(self) -> str:
    """The digest of the code that computes it (`provenance.code`)."""
    return provenance.code(self.plug_ins)

  @functools.cached_property
  def plug_ins(self) -> list[pathlib.Path]:
    """The files outside of this package that define its family, objective, source of data and attention kernel."""
    family, kernel = models.family(self.config.family), self.config.system.execution.attention_kernel
    more = [source] if (source := sources.plug_in(self.config.data)) else []
    more += [kernels.kernel(kernel).attend] if ':' in kernel else []
    return provenance.elsewhere(family.config, family.model, type(self.objective), *more)

  @property
  def objective(self) -> Objective:
    """What the model is trained for."""
    return self.model.objective

  @property
  def metrics(self) -> dict[str, Metric]:
    """The columns of an evaluation: the objective's, and those of a probe."""
    probe = evaluate.PROBE if self.config.evaluate.probe else {}
    return {**self.objective.metrics, **self.objective.evaluated, **probe}

  @functools.cached_property
  def parts(self) -> dict[str, dict[str, int]]:
    """The parameters and FLOPs of the parts of the model that its objective counts apart (`Objective.parts`)."""
    return {name: {'params': params, 'flops_per_example_forward': forward}
            for name, (params, forward) in self.objective.parts(self.model).items()}

  @property
  def entries(self) -> tuple[str, ...]:
    """The names of the entries of a batch that are read, without 'weight'."""
    return tuple(self.objective.inputs(self.model.image_shape))

  @property
  def learnt_tokenizer(self) -> str | None:
    """The content of a tokenizer.json, where text is read by a tokenizer that was learnt from the data."""
    return self.data.tokenizer.learnt if 'text' in self.entries else None

  @functools.cached_property
  def fingerprints(self) -> dict[str, str]:
    """{split: what tells its data from others} (`data.fingerprint`)."""
    return {split: self.data.fingerprint(split) for split in ('train', 'val', 'test')}

  @property
  def facts(self) -> dict[str, str]:
    """What all processes of a run must know alike, for `processes.agree`: config, code, data and versions."""
    flat = {f'config.{key}': value for key, value in schema.flat(schema.plain(self.config)).items()}
    data = {f'the {split} data': value for split, value in self.fingerprints.items()}
    facts = {**flat, 'the code': self.code, **data, 'the class names': list(self.data.class_names), **_versions(),
             'branch_steps': list(self.branch_steps)}
    return {name: json.dumps(value) for name, value in facts.items()}

  @property
  def eval_every(self) -> int:
    return self.config.evaluate.every or max(1, math.ceil(self.steps / 10))

  @property
  def log_every(self) -> int:
    return self.config.system.log_every or max(1, math.ceil(self.steps / 50))

  @property
  def saved_when(self) -> Due:
    """When checkpoints are due."""
    system = self.config.system
    return Due(self.branch_steps, system.keep_every, system.save_every, system.save_minutes, self.log_every,
               bool(self.config.evaluate.patience))

  @property
  def platform(self) -> str:
    """'cpu', 'gpu' or 'tpu'."""
    return self.mesh.devices.flat[0].platform

  def recomputing(self, remat: str) -> 'Run':
    """The run with a model whose backward pass recomputes so much (`layers.stack.POLICIES`)."""
    execution = self.config.system.execution
    if remat == execution.remat or remat == stack.POLICIES[0]:  # which `auto` begins with
      return self
    shape = self.config.family, self.config.model, self.data.image_shape, self.data.num_classes
    return dataclasses.replace(self, model=_model(*shape, dataclasses.replace(execution, remat=remat), self.objective))

  @property
  def resolved(self) -> RunConfig:
    """The config that a step is made from: with the number of micro-batches, where that is left to the devices."""
    system, uses = self.config.system, self.flops_per_example_forward / (2 * self.params)
    chip = hardware.chip_of(self.mesh.devices.flat[0].device_kind)
    number = system.microbatches or microbatches.chosen(
        self.config, self.model, self.mesh, self.platform, chip, uses)[0]
    return dataclasses.replace(self.config, system=dataclasses.replace(system, microbatches=number))

  def train_batches(self, first_step: int, report: Callable[[list[str]], None],
                    left_out: Sequence[int] | None = None) -> Iterator[dict]:
    """The batches from `first_step` to the end, on the devices. `report` gets the pictures that cannot be read.

    `left_out` numbers batches of the order that are left out; None: those of the config.
    """
    left_out = self.config.train.leave_out if left_out is None else left_out
    size, workers = self.config.data.batch_size, self.config.system.workers
    return self._placed(size, report, lambda rows: self.data.train_batches(
        self.config.seed, first_step, self.steps - first_step, rows, workers, left_out))

  def eval_batches(self, split: str, report: Callable[[list[str]], None]) -> Iterator[dict]:
    """All batches of a split, as `train_batches` gives those of training."""
    size, workers = self.config.evaluate.batch_size or self.config.data.batch_size, self.config.system.workers
    return self._placed(size, report, lambda rows: self.data.eval_batches(split, size, rows, workers))

  def _placed(self, batch_size, report, read):
    """Each process reads the rows that its devices hold."""
    rows = processes.rows(mesh_lib.sharding(self.mesh, 'batch'), batch_size)
    with contextlib.closing(read(rows)) as batches:
      for batch in batches:
        report(batches.take_errors())
        yield self.place(batch, batch_size)

  def place(self, batch: dict, batch_size: int | None = None) -> dict:
    """This process's rows of a batch (of data.batch_size by default) as global arrays, split over the mesh."""
    place = functools.partial(processes.place, mesh_lib.sharding(self.mesh, 'batch'),
                              batch_size or self.config.data.batch_size)
    return {name: place(batch[name]) for name in (*self.entries, 'weight')}

  def position(self, step: int) -> dict[str, Any]:
    """Where a run stands after `step` steps: the fields that every row of metrics.jsonl begins with."""
    examples = step * self.config.data.batch_size
    return {'step': step, 'examples': examples, 'unique_examples': self.data.unique_examples,
            'epochs': examples / self.data.unique_examples, 'flops': examples * self.flops_per_example_train}

  def record(self) -> dict[str, Any]:
    """The fields of run.json that are known before the run starts."""
    device = jax.devices()[0]
    return {
        'config': schema.plain(self.config), 'config_hash': self.config_hash,
        'params': self.params, 'params_non_embedding': self.params_non_embedding,
        'flops_per_example_forward': self.flops_per_example_forward,
        'flops_per_example_train': self.flops_per_example_train, 'steps': self.steps,
        'data': {'name': self.data.name, 'split': {s: self.data.size(s) for s in ('train', 'val', 'test')},
                 'unique_examples': self.data.unique_examples, 'classes': list(self.data.class_names),
                 **({'several_labels': True} if self.data.several_labels else {}),
                 'fingerprint': self.fingerprints, 'image_shape': list(self.data.image_shape)},
        'devices': {'kind': device.device_kind, 'platform': device.platform, 'count': jax.device_count(),
                    'processes': jax.process_count()},
        'mesh': dict(self.mesh.shape), 'versions': _versions(), 'git': provenance.commit(), 'code': self.code,
        'higher_is_better': [name for name, metric in self.metrics.items() if metric.higher_is_better],
        **({'parts': self.parts} if self.parts else {}),
        **({'plug_ins': [str(path) for path in self.plug_ins]} if self.plug_ins else {}),
        **({'pretrained': {'source': self.pretrained.source, 'new': list(self.pretrained.new)}}
           if self.pretrained else {}),
        **({'teacher': {'config_hash': self.teacher.config_hash, 'digest': self.teacher.digest}}
           if self.teacher else {}),
        **({'trunk_hash': branch.trunk_hash(self.config)} if branch.shares_trunk(self.config) else {}),
        **({'branch_steps': list(self.branch_steps)} if self.branch_steps else {})}


def prepare(config: RunConfig, open_data: Callable[[Any], Any] = pipeline.open_data) -> Run:
  """Checks a run and opens its data.

  Args:
    config: the run's.
    open_data: DataConfig -> Data; where many runs are prepared, one that remembers.

  Raises:
    UserError: anything in the config that cannot be done with this data on these devices.
  """
  mesh = check(config)
  if config.pretrained.path is not None and config.pretrained.digest is None:  # weights, perhaps a download, come last
    sources.open_sources(config.data)
  config = given.resolve(config)
  objective = objectives.of(config)
  data = open_data(config.data)
  data = data.reading(objective.inputs(data.image_shape))
  objective = objective.for_data(data)
  data.check_entries(objective.inputs(data.image_shape))
  evaluate.check_metric(config.evaluate.metric, {
      **objective.metrics, **objective.evaluates(data), **evaluate.PROBE}, f'{config.objective} on these data')
  evaluate.check_patience(config.evaluate, data.size('val'))
  if config.evaluate.probe:
    evaluate.check_probe(config.evaluate, data.labels(data.balanced('train', config.evaluate.probe)),
                         data.num_classes)
  if objective.predicts_classes and data.num_classes < 2:
    raise UserError(f'data.source={config.data.source}: has no classes, which objective={config.objective} predicts')
  shape = config.family, config.model, data.image_shape, data.num_classes
  model = _model(*shape, config.system.execution, objective)
  check_model(config, model, mesh)
  forward, train, params, params_non_embedding = _costs(*shape, objective, config.optimizer.train_only)
  steps = schedule.num_steps(config.train, config.data.batch_size, data.unique_examples, train)
  schedule.check(config.schedule, steps)
  teacher = None
  if config.distill.teacher is not None:
    teacher = teacher_lib.find(config.distill, data.class_names, data.image_shape, config.data)
  start = pretrained_lib.find(config.pretrained, model, data.class_names)
  return Run(config, data, model, mesh, steps, params, params_non_embedding, forward, train, teacher, start)


def check(config: RunConfig) -> LogicalMesh:
  """The mesh of a config; raises UserError for what is wrong whatever the data and the weights: neither is opened."""
  run_config.check(config)
  tracking.check(config.system.track)
  mesh = mesh_lib.make_mesh(config.system.mesh)
  check_batches(config, mesh)
  return mesh


def check_model(config: RunConfig, model: PureModel, mesh: LogicalMesh | None) -> None:
  """Raises UserError for what the mesh, where there is one, does not divide, or the model has no rule or name for."""
  if mesh is not None:
    mesh_lib.param_shardings(mesh, model.param_shapes(), model.param_axes())
    blocks.check(mesh.rules, config.system.execution.blocks == 'shard_map')
  parametrisation.factors(config.parametrisation, config.optimizer.name, model)
  trainable.trained(config.optimizer, model)
  for name in ('rates', 'decays'):
    trainable.scaled(config.optimizer, name, model)


def prepare_trunk(config: RunConfig, branch_steps: Sequence[int],
                  open_data: Callable[[Any], Any] = pipeline.open_data) -> Run:
  """The trunk of a run, up to the last of `branch_steps`; see `prepare`."""
  if not branch_steps or min(branch_steps) < 1:
    raise UserError(f'--branch_steps={",".join(map(str, branch_steps))}: steps from 1 on are needed')
  check(config)
  run = prepare(branch.trunk_config(given.resolve(config), max(branch_steps)), open_data)
  return dataclasses.replace(run, branch_steps=tuple(sorted(set(branch_steps))))


_model = functools.cache(PureModel)  # the runs of a sweep share shapes


@functools.cache
def _costs(family, config, image_shape, num_classes, objective, train_only) -> tuple[int, int, int, int]:
  """(forward FLOPs, training FLOPs, parameters, non-embedding parameters), whatever the execution.

  Counted on the scanned stack: the same numbers, and one block to trace instead of all.
  """
  model = _model(family, config, image_shape, num_classes, Execution(), objective)
  freeze = trainable.freezer(OptimizerConfig(train_only=train_only), model)
  return *flops.per_example(model, freeze), *flops.params(model)


def estimate_seconds(run: Run) -> float:
  """A rough guess of the training time: the devices' speed at the share of it that such runs reach."""
  share = 0.35  # of peak (chips in the table) or of a large matmul (others)
  per_second = share * hardware.matmul_speed(jax.local_devices()[0]) * jax.device_count()
  return run.position(run.steps)['flops'] / per_second


def check_batches(config: RunConfig, mesh: LogicalMesh) -> None:
  """Raises UserError for batches that do not divide by the mesh's batch shards and the micro-batches."""
  shards, micro = mesh_lib.batch_shards(mesh), config.system.microbatches or 1
  sizes = {'data.batch_size': (config.data.batch_size, shards * micro)}
  if config.evaluate.batch_size:
    sizes['evaluate.batch_size'] = (config.evaluate.batch_size, shards)
  for name, (size, parts) in sizes.items():
    if size % parts:
      below, above = size // parts * parts, (size // parts + 1) * parts
      near = f'{below} or {above}' if below > 0 else f'{above}'
      slices, other = (f' x {micro} micro-batches', ', or another system.microbatches') if parts != shards else ('', '')
      raise UserError(f'{name}={size}: must be a multiple of {parts} ({shards} batch shards of the mesh{slices}), such '
                      f'as {near}{other}')


def _versions():
  from importlib import metadata
  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'grain')
  return {name: metadata.version(name) for name in names}
