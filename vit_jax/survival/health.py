"""Monitoring of loss and gradient norm: values that are not finite, and sudden jumps."""

import dataclasses
import math
from typing import Literal

from vit_jax.errors import UserError
from vit_jax.options import option

# Verdicts of a step that is judged on the devices (`training.guard`): it was right; its loss or gradient is not finite;
# the parameters after it would not be; its loss jumps; its gradient norm jumps.
FINE, NOT_FINITE, NO_UPDATE, *JUMPS = range(5)

# A jump is a value above the mean of earlier ones by this many standard deviations, and by this difference, both of the
# logarithm. Mean and deviation are running averages over about OVER values. No jump is reported before FIRST values.
DEVIATIONS, LEAST, OVER, FIRST = 5.0, math.log(2), 100, 50

_WORDS = {'loss': 'loss', 'grad_norm': 'gradient norm'}


@dataclasses.dataclass(frozen=True)
class HealthConfig:
  """What to do if a loss or gradient is not finite or jumps, and which batches a run never sees."""
  on_nonfinite: Literal['stop', 'skip'] = 'stop'  # 'skip': the step changes nothing but the step count
  most_skipped: int = option(10, least=1)  # 'skip': largest number of skipped steps in a row; one more ends the run
  # 'skip': a step whose loss or gradient norm jumps changes nothing but the step count. 'rewind': the run goes back to
  # its last checkpoint and leaves out the batch of that step.
  on_spike: Literal['note', 'skip', 'rewind'] = 'note'
  most_rewinds: int = option(10, least=1)  # 'rewind': largest number of batches left out so; one more ends the run
  # Batches that are left out from the start. Batch n is that of step n where nothing is left out.
  leave_out: tuple[int, ...] = option((), least=1)


class Spike(Exception):
  """A step for which the run goes back; `event` describes it."""

  def __init__(self, event: dict):
    super().__init__(words(event))
    self.event = event


class Watch:
  """Checks the loss and gradient norm of each step, in order."""

  def __init__(self, config: HealthConfig):
    self._config = config
    self._jumps = {'loss': _Jumps(), 'grad_norm': _Jumps()}

  def observe(self, step: int, loss: float, grad_norm: float, verdict: float = FINE, in_a_row: float = 0,
              usual: float = math.nan) -> list[dict]:
    """The events of a step: dicts {'event': 'nonfinite' | 'spike', 'step', ...}.

    Args:
      step: the number of finished steps.
      loss: the loss of this step.
      grad_norm: the norm of its gradient.
      verdict: that of the devices, where they judge steps.
      in_a_row: the number of skipped steps up to this one, if it was skipped.
      usual: the usual value of what jumps.

    Raises:
      UserError: loss or gradient is not finite, or too many steps were skipped, and the run must end.
      Spike: the loss or the gradient norm jumps, and the run must go back.
    """
    values, config = {'loss': loss, 'grad_norm': grad_norm}, self._config
    finite = all(map(math.isfinite, values.values()))
    if config.on_nonfinite == 'stop' and not finite:
      raise UserError(f'the {_which(values)} at step {step}')
    if verdict == FINE:
      return self._spikes(step, values) if config.on_spike == 'note' else []
    if verdict in JUMPS:
      name = list(values)[JUMPS.index(verdict)]
      event = {'event': 'spike', 'step': step, 'what': name, 'value': values[name], 'usual': usual}
      if config.on_spike == 'rewind':
        raise Spike(event)
    else:
      event = {'event': 'nonfinite', 'step': step, **values}
    event |= {'in_a_row': int(in_a_row)}
    if in_a_row > config.most_skipped:
      raise UserError(f'the {_what(event)} at step {step}, and the {config.most_skipped} steps before it were skipped '
                      'for such reasons (train.most_skipped)')
    return [event]

  def _spikes(self, step, values):
    return [{'event': 'spike', 'step': step, 'what': name, 'value': value, 'usual': usual}
            for name, value in values.items() if (usual := self._jumps[name].observe(value)) is not None]


def words(event: dict) -> str:
  """An event of `Watch.observe` as text."""
  return f'step {event["step"]}{" skipped" if "in_a_row" in event else ""}: {_what(event)}'


def _what(event):
  if event['event'] == 'spike':
    return f'{_WORDS[event["what"]]} jumps to {event["value"]:.4g}, usually {event["usual"]:.4g}'
  if all(math.isfinite(event[name]) for name in _WORDS):
    return 'update of the parameters is not finite'
  return _which(event)


def _which(values):
  name = next(name for name in _WORDS if not math.isfinite(values[name]))
  return f'{_WORDS[name]} is {values[name]}'


class _Jumps:
  """Detects values far above previous ones.

  A jump enters the averages with the bound as its value, so that only the first values of a new level are reported.
  """

  def __init__(self):
    self._count, self._mean, self._variance = 0, 0.0, 0.0

  def observe(self, value: float) -> float | None:
    """The usual value if this one is a jump, else None."""
    logarithm = math.log(max(value, 1e-30))
    bound = self._mean + max(DEVIATIONS * math.sqrt(self._variance), LEAST)
    usual = math.exp(self._mean) if self._count >= FIRST and logarithm > bound else None
    self._count += 1
    rate = 1 / min(self._count, OVER)
    off = (min(logarithm, bound) if usual is not None else logarithm) - self._mean
    self._mean += rate * off
    self._variance += rate * (off * off * (1 - rate) - self._variance)
    return usual
