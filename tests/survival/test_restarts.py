import pytest

from vit_jax.errors import UserError
from vit_jax.survival import restarts


def _begun(*steps):
  return [{'event': restarts.BEGUN, 'step': step} for step in steps]


@pytest.mark.parametrize('events, step', [
    ([], 0),
    (_begun(0, 0, 0), 0),  # this is the third restart
    (_begun(0, 0, 0, 0), 10),  # it made progress
    (_begun(0, 10, 20, 30, 30, 30), 30),
    (_begun(400, 100, 150, 150, 200), 200),  # fell back to an older checkpoint, and makes progress from there
    ([*_begun(0, 0, 0, 0), {'event': 'failed'}], 0),  # the user has seen this
    ([*_begun(0, 0, 0, 0), {'event': 'stopped', 'by_hand': True}], 0),
    ([*_begun(0, 0, 0, 0), {'event': 'failed'}, *_begun(0, 0, 0)], 0),
])
def test_runs_that_make_progress_or_were_seen_to_fail_may_restart(events, step):
  restarts.check(events, step)


@pytest.mark.parametrize('events, step', [
    (_begun(0, 0, 0, 0), 0),
    (_begun(0, 10, 10, 10, 10), 10),
    ([*_begun(0, 0), {'event': 'stopped', 'by_hand': False}, *_begun(0, 0)], 0),
    (_begun(400, 100, 100, 100), 100),
])
def test_three_restarts_without_a_newer_checkpoint_are_the_limit(events, step):
  with pytest.raises(UserError, match=f'3 restarts made no checkpoint after step {step}'):
    restarts.check(events, step)
