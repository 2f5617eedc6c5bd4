"""Distillation: the loss of a student that learns from a teacher (Touvron et al. 2021a, sec. 4)."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from vit_jax.errors import UserError
from vit_jax.optimisation import losses
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class DistillConfig:
  """How to distil."""
  teacher: str | None = None  # the run folder of a trained model of any family; None: no teacher
  kind: Literal['hard', 'soft'] = 'hard'  # its decision as a label (eq. 3), or its probabilities (eq. 2)
  weight: float = option(0.5, most=1)  # the weight of the teacher in the loss; that of the labels is 1 - weight
  temperature: float = option(1.0, least=0.01, most=1_000)  # 'soft': the logits of both are divided by it
  # Of the teacher's arrays. It replaces the folder in the run's identity, and another teacher in the folder is refused.
  digest: str | None = None


def check(config: DistillConfig) -> None:
  """Raises UserError for values that nothing reads."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if config.teacher is None and value != field.default:
      raise UserError(f'distill.{field.name}={value}: there is no teacher; give distill.teacher, a run folder')


def per_example(config: DistillConfig, loss: str, logits_BC: jax.Array, intermediates: dict,
                targets_BC: jax.Array, teacher_BC: jax.Array) -> jax.Array:
  """The loss of each example [B]: (1 - weight) x the loss of the labels + weight x the loss of the teacher.

  Args:
    config: how to distil.
    loss: the name of the loss of the labels (`losses.per_example`).
    logits_BC: the student's logits.
    intermediates: the student's intermediates. Each of a DeiT's two heads learns one part of the loss; in other models
      the logits learn both.
    targets_BC: the targets from the labels, float32.
    teacher_BC: the teacher's logits.
  """
  class_BC = intermediates.get('class_logits', logits_BC)
  student_BC = intermediates.get('teacher_logits', logits_BC)
  labels_B = losses.per_example(loss, class_BC, targets_BC)
  if config.kind == 'hard':
    decision_BC = jax.nn.one_hot(jnp.argmax(teacher_BC, axis=-1), teacher_BC.shape[-1], dtype=jnp.float32)
    teacher_B = losses.per_example('softmax', student_BC, decision_BC)
  else:  # Kullback-Leibler divergence, times t^2 so that gradients keep their size (Hinton et al. 2015, sec. 2)
    t = config.temperature
    theirs_BC, ours_BC = (jax.nn.log_softmax(x.astype(jnp.float32) / t) for x in (teacher_BC, student_BC))
    teacher_B = t * t * jnp.sum(jnp.exp(theirs_BC) * (theirs_BC - ours_BC), axis=-1)
  return (1 - config.weight) * labels_B + config.weight * teacher_B
