"""Classification: a picture in, the probability of each class out. It is the default."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from vit_jax.objectives.objective import Metric, Objective
from vit_jax.optimisation import losses
from vit_jax.options import option
from vit_jax.transfer import distillation
from vit_jax.transfer.distillation import DistillConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """The training loss. In evaluation it is plain cross-entropy, so that runs can be compared."""
  name: Literal['softmax', 'sigmoid'] = 'softmax'
  # Share of the target that is spread evenly over the classes (Szegedy et al. 2016).
  label_smoothing: float = option(0.0, below=1)


@dataclasses.dataclass(frozen=True)
class Classify(Objective):
  """One label for each picture; with a teacher, its predictions are a part of the target (`transfer.distillation`)."""
  distill: DistillConfig = DistillConfig()

  Config: ClassVar[type] = Config
  metrics = {'loss': Metric(), 'accuracy': Metric(higher_is_better=True, share=True),
             'error': Metric(share=True, shown=False)}
  values = ('loss', 'correct')
  predicts_classes = True

  @classmethod
  def of(cls, config):
    return cls(config.loss, config.distill)

  def check(self, config):
    distillation.check(config.distill)

  def inputs(self, image_shape):
    return super().inputs(image_shape) | {'label': jax.ShapeDtypeStruct((), jnp.int32)}

  def prepare(self, model, batch, augment, keys_B):
    targets_BC = losses.targets(batch['label'], model.num_classes, self.config.label_smoothing)
    images, targets_BC = augment(batch['image'], targets_BC, batch['weight'])
    return batch | {'image': images, 'targets': targets_BC}

  def loss(self, outputs, batch):
    """The batch may have 'teacher' [B, C], a teacher's logits."""
    logits_BC, targets_BC = outputs['logits'], batch['targets']
    if 'teacher' in batch:
      loss_B = distillation.per_example(self.distill, self.config.name, logits_BC, outputs, targets_BC,
                                        batch['teacher'])
    else:
      loss_B = losses.per_example(self.config.name, logits_BC, targets_BC)
    return {'loss': loss_B, 'correct': jnp.argmax(logits_BC, axis=-1) == jnp.argmax(targets_BC, axis=-1)}

  def score(self, outputs, batch):
    logits_BC = outputs['logits']
    targets_BC = losses.targets(batch['label'], logits_BC.shape[-1], 0.0)
    return {'loss': losses.per_example('softmax', logits_BC, targets_BC),
            'correct': jnp.argmax(logits_BC, axis=-1) == batch['label']}

  def report(self, means):
    return {'loss': means['loss'], 'accuracy': means['correct'], 'error': 1 - means['correct']}


OBJECTIVE = Classify
