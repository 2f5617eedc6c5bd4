import pytest

from vit_jax import records
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


def _opening(*steps):
  return [{'event': restarts.OPENING, 'step': step} for step in steps]


@pytest.mark.parametrize('events, allowed', [
    (_opening(0, 0, 0, 0), True),  # the last is this process
    (_opening(0, 0, 0, 0, 0), False),  # four were killed while they opened their data
    ([*_opening(0), *_begun(0)] * 3, True),
    ([*_opening(0), *_begun(0)] * 4, False),
    ([*_opening(0), *_begun(0), *_opening(0, 0, 0)], True),
    ([*_opening(0), *_begun(0), *_opening(0, 0, 0, 0)], False),
    ([*_opening(0, 0, 0, 0), {'event': 'failed'}, *_opening(0)], True),
])
def test_processes_that_are_killed_while_they_open_their_data_count(events, allowed):
  if allowed:
    restarts.check(events, 0)
  else:
    with pytest.raises(UserError, match='3 restarts made no checkpoint'):
      restarts.check(events, 0)


def test_opening_is_noted_and_how_it_failed(tmp_path):
  def events():
    return [event['event'] for event in records.read_events(tmp_path / records.EVENTS)]

  with restarts.opening(tmp_path / 'new'), restarts.opening(None):
    assert not (tmp_path / 'new').exists()
  (tmp_path / records.EVENTS).write_text('')
  with restarts.opening(tmp_path):
    assert events() == ['opening']
  with pytest.raises(ValueError), restarts.opening(tmp_path):
    raise ValueError('no data')
  assert events() == ['opening', 'opening', 'failed']
  records.write_run(tmp_path, {'status': 'finished'})
  with restarts.opening(tmp_path):
    assert len(events()) == 3
