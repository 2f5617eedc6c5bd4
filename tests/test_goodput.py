import pytest
from hypothesis import given, settings, strategies

from vit_jax import goodput


def _so_far(**seconds):
  return {goodput.SO_FAR: dict.fromkeys(('step', 'start', 'compile', 'data', 'evaluate', 'save'), 0.0) | seconds}


def _process(begins, first, **start):
  return {'event': 'resume' if first else 'start', 'step': first, 'time': begins, **_so_far(start=5.0)}


def test_an_undisturbed_run_loses_nothing():
  events = [{'event': 'begun', 'step': 0, 'time': 102.0}, _process(105.0, 0),
            {'event': 'compile', 'time': 115.0},
            {'event': 'save', 'step': 10, 'time': 125.0, **_so_far(start=5.0, compile=10.0, step=9.0, save=1.0)},
            {'event': 'finished', 'step': 20, 'time': 135.0,
             **_so_far(start=5.0, compile=10.0, step=17.0, save=1.0, evaluate=2.0)}]
  assert goodput.breakdown(events) == {'step': 17.0, 'start': 5.0, 'compile': 10.0, 'data': 0.0, 'evaluate': 2.0,
                                   'save': 1.0, 'lost': 0.0}


def test_time_after_the_checkpoint_is_lost_and_time_without_a_process_does_not_count():
  events = [_process(105.0, 0),
            {'event': 'save', 'step': 10, 'time': 125.0, **_so_far(start=5.0, step=20.0)},
            {'event': 'train', 'step': 15, 'time': 132.0},  # killed here
            {'event': 'begun', 'step': 10, 'time': 1000.0}, _process(1005.0, 10),
            {'event': 'train', 'step': 12, 'time': 1008.0},  # and here
            {'event': 'begun', 'step': 10, 'time': 2000.0}, _process(2005.0, 10),
            {'event': 'finished', 'step': 20, 'time': 2025.0, **_so_far(start=5.0, step=20.0)}]
  spent = goodput.breakdown(events)
  assert spent['lost'] == 7 + (5 + 3) and spent['step'] == 40 and spent['start'] == 10
  assert sum(spent.values()) == (25 + 7) + 8 + 25


def test_a_damaged_checkpoint_loses_the_time_before_it():
  events = [_process(105.0, 0),
            {'event': 'save', 'step': 10, 'time': 115.0, **_so_far(start=5.0, step=10.0)},
            {'event': 'save', 'step': 20, 'time': 125.0, **_so_far(start=5.0, step=20.0)},
            _process(205.0, 10),
            {'event': 'finished', 'step': 30, 'time': 225.0, **_so_far(start=5.0, step=20.0)}]
  spent = goodput.breakdown(events)
  assert spent['lost'] == 10 and spent['step'] == 30


def test_a_clock_accounts_for_all_time(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(goodput.time, 'perf_counter', lambda: now[0])
  clock = goodput.Clock()
  now[0] = 4.0
  clock.started()
  for kind, seconds in (('compile', 3.0), ('data', 1.0), ('data', 1.5)):
    with clock.measure(kind):
      now[0] += seconds
  now[0] += 10.0
  assert clock.seconds() == {'step': 10.0, 'start': 4.0, 'compile': 3.0, 'data': 2.5, 'evaluate': 0.0, 'save': 0.0}


def test_descriptions_begin_with_the_largest():
  assert goodput.describe({'step': 88.0, 'compile': 11.9, 'save': 0.1}) == '88% steps, 12% compiling'
  assert goodput.describe({'step': 0.0}) == ''


def test_no_events_are_no_time():
  assert sum(goodput.breakdown([]).values()) == pytest.approx(0)


def test_shares_are_over_all_runs():
  breakdowns = [goodput.breakdown([_process(105.0, 0), {'event': 'finished', 'step': 9, 'time': 115.0,
                                                 **_so_far(start=5.0, step=seconds)}]) for seconds in (10.0, 30.0)]
  shares = {row['what']: row['share'] for row in goodput.shares(goodput.total(breakdowns))}
  assert shares == {'steps': 0.8, 'starting': 0.2, 'compiling': 0, 'waiting for data': 0, 'evaluating': 0, 'saving': 0,
                    'lost to restarts': 0}
  assert goodput.shares(goodput.total([])) == []


ANYTHING = strategies.one_of(strategies.none(), strategies.booleans(), strategies.floats(), strategies.text(),
                             strategies.integers(-5, 10**400), strategies.lists(strategies.integers()))


@settings(max_examples=200, deadline=None)
@given(strategies.lists(strategies.fixed_dictionaries({}, optional={
    'event': strategies.sampled_from([*goodput.STARTS, 'save', 'begun', 'train']) | ANYTHING,
    'time': strategies.floats(0, 1e6) | ANYTHING, 'step': strategies.integers(0, 50) | ANYTHING,
    goodput.SO_FAR: strategies.dictionaries(strategies.sampled_from(['step', 'start', 'save', 'odd']),
                                            strategies.floats(0, 1e6) | ANYTHING) | ANYTHING}), max_size=8))
def test_logs_with_arbitrary_contents_give_times(events):
  spent = goodput.breakdown(events)
  assert set(spent) == set(goodput.total([])) and all(0 <= seconds < 1e18 for seconds in spent.values())
