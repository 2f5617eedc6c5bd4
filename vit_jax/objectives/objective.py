"""The contract of an objective: what a model is trained for, and all that the rest of the program asks about it.

A new objective is one file with

1. a frozen dataclass `Config` with a default for every field. `config.loss` is this class: its fields are the options
   of a recipe and a part of a run's identity. A classmethod `of_weights(path, ignore)`, if it has one, reads what the
   objective has added to the model of given weights (`transfer.pretrained.Whole`), so that a run starts from that too.
2. a subclass of `Objective`, whose methods are pure functions of a batch. Most objectives have a `prepare`, a `loss`
   and their `metrics`; the other methods have defaults.
3. `OBJECTIVE = MyObjective`, and its line in `objectives.OBJECTIVES`.

The training loop, the order of the data, sharding, checkpoints, sweeps and laws know nothing else of it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel
from vit_jax.models.family import Family

# (images uint8 [B, H, W, C], targets [B, ...] or None, weights [B] or None) -> (images float32, targets)
Augment = Callable[..., tuple[jax.Array, Any]]
Batch = dict[str, jax.Array]


_KEPT = {'weight', 'grad_norm', 'steps', 'skipped', 'in_a_row', 'usual'}  # what the loop sums beside the values


@dataclasses.dataclass(frozen=True)
class Metric:
  """A column of metrics.jsonl.

  Attributes:
    higher_is_better: which way it improves.
    share: it is a part of a whole, from 0 to 1, and is printed as a percentage.
    shown: whether the terminal and TensorBoard show it.
  """
  higher_is_better: bool = False
  share: bool = False
  shown: bool = True


@dataclasses.dataclass(frozen=True)
class NoOptions:
  """The config of an objective without options."""


@dataclasses.dataclass(frozen=True)
class Objective:
  """What a model is trained for. Instances are compared by value: equal ones share compiled programs.

  Attributes:
    config: its options, `config.loss` of a run.
    Config: the class of `config`.
    metrics: the columns that it adds to metrics.jsonl. The first is 'loss'.
    values: the names of what `loss` and `score` return. The first is 'loss', which is minimised. By default those of
      the metrics.
    evaluated: columns that evaluation alone adds, with some data perhaps (`evaluates`).
    evaluators: with `whole_split`, (run, params, stats, split, what is `kept` of it) -> more of these columns.
    predicts_classes: whether the trained model tells classes, so that it can be used by `predict`, `--evaluate` and
      `--report`.
    use: the flag of `predict` that a run of it is for, such as --caption; '' if there is none.
    whole_batch: whether the loss of an example depends on the others of its batch. Then all outputs of `forward` are
      floats [B, ..], micro-batches compute those that others need twice (`of_all`), and `whole_split` holds.
    whole_split: whether evaluation scores a split as a whole, from what is `kept` of each example (`score_split`).
    masked: whether its attention has a mask, which `layers.attention.attend` computes and no other kernel.
  """
  config: Any = NoOptions()

  Config: ClassVar[type] = NoOptions
  metrics: ClassVar[Mapping[str, Metric]] = {'loss': Metric()}
  values: ClassVar[tuple[str, ...]] = ('loss',)
  evaluated: ClassVar[Mapping[str, Metric]] = {}
  evaluators: ClassVar[tuple[Callable[..., dict[str, float]], ...]] = ()
  predicts_classes: ClassVar[bool] = False
  use: ClassVar[str] = ''
  whole_batch: ClassVar[bool] = False
  whole_split: ClassVar[bool] = False
  masked: ClassVar[bool] = False

  def __init_subclass__(cls):
    super().__init_subclass__()
    if 'metrics' in cls.__dict__ and 'values' not in cls.__dict__:
      cls.values = tuple(cls.metrics)
    cls.whole_split = cls.whole_split or cls.whole_batch
    first = (next(iter(cls.metrics), None), *cls.values[:1])
    if first != ('loss', 'loss'):
      raise TypeError(f'{cls.__name__}: metrics and values must begin with loss, which is minimised; got {first}')
    if taken := _KEPT & set(cls.values):
      raise TypeError(f'{cls.__name__}: values must not be called {", ".join(sorted(taken))}: the loop keeps these')
    if not (dataclasses.is_dataclass(cls.Config) and cls.Config.__dataclass_params__.frozen):
      raise TypeError(f'{cls.__name__}: Config must be a frozen dataclass with a default for every field')

  @classmethod
  def of(cls, config: Any) -> 'Objective':
    """The objective of a RunConfig."""
    return cls(config.loss)

  def check(self, config: Any) -> None:
    """Raises UserError for a RunConfig that this objective cannot have; nothing has been opened yet."""
    augment = config.data.augment
    for name in ('mixup', 'cutmix'):
      if getattr(augment, name):
        raise UserError(f'data.augment.{name}={getattr(augment, name)}: mixes the targets of two pictures, which '
                        f'objective={config.objective} does not have; set it to 0')
    if (probe := config.pretrained.probe) != 'never':
      raise UserError(f'pretrained.probe={probe}: stops at a linear probe, which is for objective=classify; set it to '
                      f'never, and evaluate.probe to a number of examples to have one during training')
    if config.distill.teacher is not None:
      raise UserError(f'distill.teacher={config.distill.teacher}: a teacher is for objective=classify, not for '
                      f'{config.objective}')

  def for_data(self, data: Any) -> 'Objective':
    """This objective with what it must know of its `pipeline.Data`. Raises UserError for data that it cannot have."""
    del data
    return self

  def evaluates(self, data: Any) -> Mapping[str, Metric]:
    """Those of `evaluated` that evaluation on this `pipeline.Data` has."""
    del data
    return self.evaluated

  def inputs(self, image_shape: tuple[int, int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """What is read of an example, by the name of its entry in a batch. Every batch has also 'weight' [B] float32."""
    return {'image': jax.ShapeDtypeStruct(image_shape, jnp.uint8)}

  def outputs(self, num_classes: int) -> int:
    """The number of outputs of the model's head, for data of that many classes."""
    return num_classes

  def build(self, family: Family, config: Any, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
            execution: Execution) -> nnx.Module:
    """The module that is trained: the family's model, and what this objective adds to it.

    Raises:
      UserError: the family cannot be trained so, naming the field to change.
    """
    return family.model(config, image_shape, self.outputs(num_classes), rngs=rngs, execution=execution)

  def prepare(self, model: PureModel, batch: Batch, augment: Augment, keys_B: jax.Array) -> Batch:
    """What the model and the loss read, from the entries of `inputs`; inside the jitted step, on the whole batch.

    Args:
      model: has the shapes: `image_shape`, `num_classes` and the family's `config`.
      batch: of the entries of `inputs`, and 'weight'.
      augment: the run's augmentation; in evaluation it only normalises.
      keys_B: a PRNG key for each example, for random targets or masks: of (seed, step, row) in training, and of the
        example's place in its split in evaluation.

    Returns:
      Arrays with a leading axis [B], 'image' and 'weight' among them. Rows of weight 0 do not count.
    """
    del model, keys_B
    return batch | {'image': augment(batch['image'], None, batch['weight'])[0]}

  def forward(self, module: nnx.Module, batch: Batch, keys_B: jax.Array | None = None,
              capture: tuple[str, ...] = ()) -> dict[str, Any]:
    """The outputs of the module on a prepared batch: by default the head's, as 'logits', and the intermediates.

    `keys_B` and `capture` are those of `models.family.Model`: without keys it is evaluation.
    """
    logits_BC, intermediates = module(batch['image'], keys_B, capture)
    return {**intermediates, 'logits': logits_BC}

  def features(self, module: nnx.Module, images_BHWC: jax.Array) -> jax.Array:
    """What the model knows of whole pictures, [B, D]: by default the input of the family's head."""
    return module(images_BHWC)[1]['pre_logits']

  def loss(self, outputs: dict[str, Any], batch: Batch) -> dict[str, jax.Array]:
    """The `values` of each example, [B] float32 or bool. The program sums them, weighted by the batch's weights."""
    raise NotImplementedError

  def of_all(self) -> tuple[str, ...] | None:
    """With `whole_batch`: the outputs of all examples that the loss of some of them needs.

    None if it needs all outputs, or if the loss of a batch is no sum over its slices. Each name is one of `parts`.
    """
    return None

  def loss_among(self, outputs: dict[str, Any], batch: Batch, of_all: dict[str, Any], whole: Batch
                 ) -> dict[str, jax.Array]:
    """With `of_all`: what `loss` gives of some examples of a whole batch, from those outputs of all that it needs."""
    raise NotImplementedError

  def score(self, outputs: dict[str, Any], batch: Batch) -> dict[str, jax.Array]:
    """The same in evaluation."""
    return self.loss(outputs, batch)

  def kept(self, outputs: dict[str, Any], batch: Batch) -> dict[str, jax.Array]:
    """With `whole_split`: what `score_split` needs of each example, [B, ..], of a batch in evaluation."""
    raise NotImplementedError

  def score_split(self, kept: dict[str, Any]) -> dict[str, float]:
    """With `whole_split`: the columns of a split, from NumPy arrays [N, ..] of `kept` and 'weight', in its order.

    They must not depend on the size of the batches: each is of candidates that the split alone decides.
    """
    raise NotImplementedError

  def report(self, means: dict[str, Any]) -> dict[str, Any]:
    """The columns of `metrics` from the means of `values` over some examples."""
    return means

  def doubt(self, scores: dict[str, Any], examples: int, classes: int) -> str:
    """What the final scores of a split of so many examples cast doubt on, in words; '' if nothing.

    Args:
      scores: {metric: value}.
      examples: how many were scored.
      classes: the number of classes of the data.
    """
    del scores, examples, classes
    return ''

  def parts(self, model: PureModel) -> dict[str, tuple[int, int]]:
    """{name: (parameters, forward FLOPs per example)} of the parts of the model that are counted apart."""
    del model
    return {}

  def traced(self, model: PureModel) -> tuple[Callable, Callable, Batch]:
    """(forward, loss, batch) of one example in evaluation, for counting what they compute (`cost.flops`).

    Both functions take (params, stats, batch); the batch is of ShapeDtypeStructs.
    """
    batch = self.prepared(model, 1)

    def forward(params, stats, batch):
      return model.call(params, stats, lambda module: self.forward(module, batch, None, ('features',)))[0]

    def loss(params, stats, batch):
      return jnp.sum(self.loss(forward(params, stats, batch), batch)[self.values[0]])

    return forward, loss, batch

  def prepared(self, model: PureModel, size: int) -> Batch:
    """A prepared batch of that size as ShapeDtypeStructs."""
    one = self.inputs(model.image_shape) | {'weight': jax.ShapeDtypeStruct((), jnp.float32)}
    batch = {name: jax.ShapeDtypeStruct((size, *array.shape), array.dtype) for name, array in one.items()}
    augment = lambda images, targets=None, weights=None: (images.astype(jnp.float32), targets)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    return jax.eval_shape(lambda batch, keys: self.prepare(model, batch, augment, keys), batch, keys)


def row_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
  """A PRNG key for each row [B]."""
  return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def weighed(values_B: jax.Array, weight_B: jax.Array) -> jax.Array:
  """The sum of values, weighted."""
  if values_B.dtype == bool:
    return jnp.sum(weight_B, where=values_B)
  return jnp.sum(values_B * weight_B)


def counted(values_B: jax.Array, weight_B: jax.Array) -> jax.Array:
  """The same for weights of 0 and 1. A row of weight 0 does not count, even if its value is not a number."""
  return weighed(values_B, weight_B) if values_B.dtype == bool else jnp.sum(values_B, where=weight_B > 0)
