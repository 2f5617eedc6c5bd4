"""Monitoring of loss and gradient norm: values that are not finite, and sudden jumps."""

import dataclasses
import math
from typing import Literal

from vit_jax.errors import UserError
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class HealthConfig:
  """What to do if a loss or gradient is not finite."""
  on_nonfinite: Literal['stop', 'skip'] = 'stop'  # 'skip': the step changes nothing but the step count
  most_skipped: int = option(10, least=1)  # 'skip': largest number of skipped steps in a row; one more ends the run


class Watch:
  """Checks the loss and gradient norm of each step, in order."""

  def __init__(self, config: HealthConfig):
    self._config = config
    self._in_a_row = 0
    self._jumps = {'loss': _Jumps(), 'grad_norm': _Jumps()}

  def observe(self, step: int, loss: float, grad_norm: float) -> list[dict]:
    """The events of a step: dicts {'event': 'nonfinite' | 'spike', 'step', ...}.

    Raises:
      UserError: loss or gradient is not finite, and the run must end.
    """
    values = {'loss': loss, 'grad_norm': grad_norm}
    if all(map(math.isfinite, values.values())):
      self._in_a_row = 0
      return [{'event': 'spike', 'step': step, 'what': name, 'value': value, 'usual': usual}
              for name, value in values.items() if (usual := self._jumps[name].observe(value)) is not None]
    self._in_a_row += 1
    if self._config.on_nonfinite == 'stop':
      raise UserError(f'the {_which(values)} at step {step}')
    if self._in_a_row > self._config.most_skipped:
      raise UserError(f'the {_which(values)} at step {step}, and {self._config.most_skipped} steps before it were '
                      'skipped for the same reason (train.most_skipped)')
    return [{'event': 'nonfinite', 'step': step, **values, 'in_a_row': self._in_a_row}]


def words(event: dict) -> str:
  """An event of `Watch.observe` as text."""
  if event['event'] == 'spike':
    return f'step {event["step"]}: {_WORDS[event["what"]]} jumps to {event["value"]:.4g}, usually {event["usual"]:.4g}'
  return f'step {event["step"]} skipped: {_which(event)}'


_WORDS = {'loss': 'loss', 'grad_norm': 'gradient norm'}


def _which(values):
  name = next(name for name in _WORDS if not math.isfinite(values[name]))
  return f'{_WORDS[name]} is {values[name]}'


class _Jumps:
  """Detects values far above previous ones: by 5 standard deviations of their logarithm, and at least by a factor of 2.

  Mean and deviation are running averages over about 100 values. No jump is reported before 50 values. A jump enters the
  averages with the bound as its value, so that only the first values of a new level are reported.
  """
  _OVER, _FIRST, _DEVIATIONS, _LEAST = 100, 50, 5.0, math.log(2)

  def __init__(self):
    self._count, self._mean, self._variance = 0, 0.0, 0.0

  def observe(self, value: float) -> float | None:
    """The usual value if this one is a jump, else None."""
    logarithm = math.log(max(value, 1e-30))
    bound = self._mean + max(self._DEVIATIONS * math.sqrt(self._variance), self._LEAST)
    usual = math.exp(self._mean) if self._count >= self._FIRST and logarithm > bound else None
    self._count += 1
    rate = 1 / min(self._count, self._OVER)
    off = (min(logarithm, bound) if usual is not None else logarithm) - self._mean
    self._mean += rate * off
    self._variance += rate * (off * off * (1 - rate) - self._variance)
    return usual
