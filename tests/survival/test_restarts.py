import pytest

from vit_jax.errors import UserError
from vit_jax.survival import restarts


def _begun(*steps):
  return [{'event': restarts.BEGUN, 'step': step} for step in steps]


@pytest.mark.parametrize('events, step', [
    ([], 0),
    (_begun(0, 0, 0), 0),  # this is the third restart
    (_begun(0, 0, 0, 0), 10),  # it got on
    (_begun(0, 10, 20, 30, 30, 30), 30),
    (_begun(400, 100, 150, 150, 200), 200),  # fell back to an older one, and gets on from there
    ([*_begun(0, 0, 0, 0), {'event': 'failed'}], 0),  # somebody has seen that
    ([*_begun(0, 0, 0, 0), {'event': 'stopped', 'by_hand': True}], 0),
    ([*_begun(0, 0, 0, 0), {'event': 'failed'}, *_begun(0, 0, 0)], 0),
])
def test_what_gets_on_or_was_looked_at_goes_on(events, step):
  restarts.check(events, step)


@pytest.mark.parametrize('events, step', [
    (_begun(0, 0, 0, 0), 0),
    (_begun(0, 10, 10, 10, 10), 10),
    ([*_begun(0, 0), {'event': 'stopped', 'by_hand': False}, *_begun(0, 0)], 0),
    (_begun(400, 100, 100, 100), 100),
])
def test_three_restarts_without_a_newer_checkpoint_are_enough(events, step):
  with pytest.raises(UserError, match=f'3 restarts brought no checkpoint after step {step}'):
    restarts.check(events, step)
