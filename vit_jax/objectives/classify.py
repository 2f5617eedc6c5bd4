"""Classification: a picture in, the probability of each class out. It is the default.

Data decide whether a picture has one label or any number of them.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import UserError
from vit_jax.objectives import average_precision
from vit_jax.objectives.objective import Metric, Objective
from vit_jax.optimisation import losses
from vit_jax.options import option
from vit_jax.transfer import distillation
from vit_jax.transfer.distillation import DistillConfig

_SLACK = 0.1  # of the loss, above what calibrated probabilities have at most
_CHANCE = 0.9  # of the loss of guessing, from where on next to nothing is known of the classes


@dataclasses.dataclass(frozen=True)
class Config:
  """The training loss. In evaluation it is plain cross-entropy, so that runs can be compared."""
  name: Literal['softmax', 'sigmoid'] = 'softmax'  # several labels a picture need sigmoid
  # Share of the target that is spread evenly over the classes (Szegedy et al. 2016). With several labels a picture,
  # each class's target, 0 or 1, goes half of it towards 1/2.
  label_smoothing: float = option(0.0, below=1)
  # balanced: the loss of an example counts 1 / (pictures of its class), so that each class counts alike; on average 1.
  class_weights: Literal['none', 'balanced'] = 'none'
  # In training the logits get so many times the log of the classes' shares (Menon et al. 2021, eq. 10): 1 suits the
  # balanced error. 0 = off.
  logit_adjustment: float = option(0.0, most=100)


@dataclasses.dataclass(frozen=True)
class Classify(Objective):
  """One label for each picture; with a teacher, its predictions are a part of the target (`transfer.distillation`)."""
  distill: DistillConfig = DistillConfig()
  # Of the classes in the training pictures, where the config needs them.
  shares: tuple[float, ...] | None = dataclasses.field(default=None, kw_only=True)

  Config: ClassVar[type] = Config
  metrics = {'loss': Metric(), 'accuracy': Metric(higher_is_better=True, share=True),
             'error': Metric(share=True, shown=False)}
  values = ('loss', 'correct')
  evaluated = {'f1': Metric(higher_is_better=True, share=True), **average_precision.METRICS}  # with several labels
  predicts_classes = True

  @classmethod
  def of(cls, config):
    return cls(config.loss, config.distill)

  def check(self, config):
    distillation.check(config.distill)
    if self.config.logit_adjustment and self.config.name != 'softmax':
      raise UserError(f'loss.logit_adjustment={self.config.logit_adjustment}: is for loss.name=softmax, not for '
                      f'{self.config.name}; set it to 0')

  def for_data(self, data):
    if data.several_labels and type(self) is Classify:
      return SeveralLabels.of_data(self, data)
    if self.config.class_weights == 'none' and not self.config.logit_adjustment:
      return self
    counts_C = np.bincount(data.labels('train'), minlength=data.num_classes)
    if not counts_C.all():
      name = 'class_weights=balanced' if self.config.class_weights != 'none' else 'logit_adjustment'
      raise UserError(f'loss.{name}: class {data.class_names[int(np.argmin(counts_C))]!r} has no training pictures; '
                      'expected at least one of each class')
    return dataclasses.replace(self, shares=tuple((counts_C / counts_C.sum()).tolist()))

  def evaluates(self, data):
    return {}

  def doubt(self, scores, examples, classes):
    """A loss near that of guessing, or probabilities whose loss is higher than that of any calibrated ones."""
    from scipy import stats
    if classes < 2 or type(self) is not Classify or self.config.name != 'softmax':
      return ''
    if _CHANCE * (guess := math.log(classes)) <= scores['loss'] <= guess + _SLACK:
      return (f'the loss of {scores["loss"]:.2f} is near that of guessing, ln {classes} = {guess:.2f}: the '
              'probabilities are nearly even, whatever the picture. More steps (--config.train.epochs), a higher '
              'learning rate or, with given weights, a linear probe (--config.pretrained.probe=always) may help')
    right = round(scores['accuracy'] * examples)
    least = max(stats.binomtest(right, examples).proportion_ci(method='wilson').low, 1 / classes)
    if scores['loss'] <= (most := most_loss(least, classes)) + _SLACK:
      return ''
    return (f'the probabilities are not to be trusted: at an accuracy of {scores["accuracy"]:.1%}, calibrated ones '
            f'have a loss of {most:.2f} at most, these {scores["loss"]:.2f}. Too few steps leave them too even, too '
            'many too sure; --report shows which')

  def inputs(self, image_shape):
    return super().inputs(image_shape) | {'label': jax.ShapeDtypeStruct((), jnp.int32)}

  def prepare(self, model, batch, augment, keys_B):
    targets_BC = losses.targets(batch['label'], model.num_classes, self.config.label_smoothing)
    images, targets_BC = augment(batch['image'], targets_BC, batch['weight'])
    return batch | {'image': images, 'targets': targets_BC}

  def loss(self, outputs, batch):
    """The batch may have 'teacher' [B, C], a teacher's logits."""
    logits_BC, targets_BC = outputs['logits'], batch['targets']
    correct_B = jnp.argmax(logits_BC, axis=-1) == jnp.argmax(targets_BC, axis=-1)
    if self.config.logit_adjustment and self.shares:
      log_shares_C = jnp.log(jnp.array(self.shares, jnp.float32))
      logits_BC = logits_BC.astype(jnp.float32) + self.config.logit_adjustment * log_shares_C[None]
    if 'teacher' in batch:
      loss_B = distillation.per_example(self.distill, self.config.name, logits_BC, outputs, targets_BC,
                                        batch['teacher'])
    else:
      loss_B = losses.per_example(self.config.name, logits_BC, targets_BC)
    if self.config.class_weights == 'balanced' and self.shares:
      loss_B = loss_B * (targets_BC @ (1 / (len(self.shares) * jnp.array(self.shares, jnp.float32))))
    return {'loss': loss_B, 'correct': correct_B}

  def score(self, outputs, batch):
    logits_BC = outputs['logits']
    targets_BC = losses.targets(batch['label'], logits_BC.shape[-1], 0.0)
    return {'loss': losses.per_example('softmax', logits_BC, targets_BC),
            'correct': jnp.argmax(logits_BC, axis=-1) == batch['label']}

  def report(self, means):
    return {'loss': means['loss'], 'accuracy': means['correct'], 'error': 1 - means['correct']}


def most_loss(accuracy: float, classes: int) -> float:
  """The highest cross-entropy of calibrated probabilities that are right as often as that.

  With p on the class that is said and the rest spread evenly, the entropy is h(p) + (1 - p) ln(C - 1). It is concave in
  p, so the mean over pictures is at most its value at the mean of p, which is the accuracy (Jensen).
  """
  rest = 1 - accuracy
  return -sum(p * math.log(p) for p in (accuracy, rest) if p > 0) + rest * math.log(max(classes - 1, 1))


@dataclasses.dataclass(frozen=True)
class SeveralLabels(Classify):
  """Any number of labels for each picture, also none: a decision for each class.

  The loss is the sum over classes of binary cross-entropies, in evaluation too. 'f1' is the micro-averaged F1 of what
  has a probability above 1/2: 2 hits / (labels said + labels there), over all pictures and classes. 'map' is the mean
  over classes of the average precision over the whole split (`objectives.average_precision`).
  """
  num_classes: int = dataclasses.field(default=0, kw_only=True)

  metrics = {'loss': Metric(), 'f1': Metric(higher_is_better=True, share=True)}
  values = ('loss', 'hits', 'said', 'there')
  evaluated = average_precision.METRICS
  whole_split = True

  @classmethod
  def of_data(cls, classify: Classify, data: Any) -> 'SeveralLabels':
    """For data with several labels a picture. Raises UserError for options that need one label each."""
    config, source = classify.config, f'pictures of data.source={data.config.source} can have several labels'
    if config.name != 'sigmoid':
      raise UserError(f'loss.name={config.name}: its probabilities are of one label a picture, and {source}; set '
                      'loss.name to sigmoid')
    if config.class_weights != 'none':
      raise UserError(f'loss.class_weights={config.class_weights}: weighs pictures by their class, and {source}; set '
                      'it to none')
    if classify.distill.teacher is not None:
      raise UserError(f'distill.teacher={classify.distill.teacher}: gives one class for each picture, and {source}; '
                      'leave it out')
    return cls(config, classify.distill, num_classes=data.num_classes)

  def for_data(self, data):
    return self

  def evaluates(self, data):
    return self.evaluated

  def inputs(self, image_shape):
    return super().inputs(image_shape) | {'label': jax.ShapeDtypeStruct((self.num_classes,), jnp.uint8)}

  def prepare(self, model, batch, augment, keys_B):
    targets_BC = losses.several_targets(batch['label'], self.config.label_smoothing)
    images, targets_BC = augment(batch['image'], targets_BC, batch['weight'])
    return batch | {'image': images, 'targets': targets_BC}

  def loss(self, outputs, batch):
    return self._values(outputs['logits'], batch['targets'])

  def score(self, outputs, batch):
    return self._values(outputs['logits'], losses.several_targets(batch['label'], 0.0))

  def _values(self, logits_BC, targets_BC):
    said_BC, there_BC = logits_BC > 0, targets_BC > 0.5
    count = lambda these_BC: jnp.sum(these_BC, axis=-1, dtype=jnp.float32)
    return {'loss': losses.per_example('sigmoid', logits_BC, targets_BC), 'hits': count(said_BC & there_BC),
            'said': count(said_BC), 'there': count(there_BC)}

  def kept(self, outputs, batch):
    return self.score(outputs, batch) | {'logits': outputs['logits'].astype(jnp.float32), 'label': batch['label']}

  def score_split(self, kept):
    real = kept['weight'] > 0
    means = {name: float(np.mean(kept[name][real], dtype=np.float64)) for name in self.values}
    columns = {name: float(value) for name, value in self.report(means).items()}
    return columns | average_precision.scores(kept['logits'][real], kept['label'][real])

  def report(self, means):
    return {'loss': means['loss'], 'f1': 2 * means['hits'] / np.maximum(means['said'] + means['there'], 1e-12)}


OBJECTIVE = Classify
