import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.optimisation.schedule import LengthConfig, ScheduleConfig, check, multiplier, num_steps


def _course(config, steps=100):
  return np.asarray(jax.vmap(lambda t: multiplier(config, steps, t))(jnp.arange(steps)))


@pytest.mark.parametrize('name', ['cosine', 'linear', 'rsqrt', 'wsd', 'constant'])
def test_warms_up_to_the_peak_and_never_exceeds_it(name):
  course = _course(ScheduleConfig(name, warmup_steps=10))
  np.testing.assert_allclose(course[:10], np.arange(1, 11) / 10, rtol=1e-6)
  assert course.max() <= 1 and course.min() >= 0
  if name != 'constant':
    assert course[-1] < 0.05


@pytest.mark.parametrize('name', ['cosine', 'linear'])
def test_ends_at_the_final_multiple(name):
  plain, course = (_course(ScheduleConfig(name, warmup_steps=10, final=final)) for final in (0.0, 0.1))
  np.testing.assert_allclose(course[10:], 0.1 + 0.9 * plain[10:], rtol=1e-5)
  assert course.max() == 1 and abs(course[-1] - 0.1) < 0.02
  with pytest.raises(UserError, match='schedule.final=0.1: schedule.name=wsd has its own end'):
    check(ScheduleConfig('wsd', final=0.1), 100)


def test_the_stable_part_does_not_depend_on_the_length():
  """Bit for bit, as a branch of a trunk must equal the run of its length."""
  config = ScheduleConfig('wsd', warmup_steps=10, cooldown_fraction=0.3)
  short, long = _course(config, 100), _course(config, 400)
  np.testing.assert_array_equal(short[:70], long[:70])
  assert (short[71:] < 1).all() and short[99] == pytest.approx(1 / 30)


@pytest.mark.parametrize('timescale', [30.0, 10_000.0])
def test_rsqrt_has_fallen_by_the_root_of_two_after_its_timescale(timescale):
  config = ScheduleConfig('rsqrt', warmup_steps=10, cooldown_fraction=0.0, timescale=timescale)
  at = lambda after: multiplier(config, 100_000, 10 + after, np)
  assert at(0) == 1 and at(timescale) == pytest.approx(2 ** -0.5) and at(8 * timescale) == pytest.approx(1 / 3)


def test_a_step_schedule_falls_to_a_tenth_at_each_drop():
  """Goyal et al. 2017, sec. 5.1: 5 epochs of warm-up from a quarter, a tenth after 30, 60 and 80 of 90 epochs."""
  course = _course(ScheduleConfig('step', warmup_steps=50, warmup_from=0.25, drops=(30 / 90, 60 / 90, 80 / 90)), 900)
  np.testing.assert_allclose(course[[0, 49, 50, 299]], [0.25 + 0.75 / 50, 1, 1, 1], rtol=1e-6)
  np.testing.assert_allclose(course[[300, 599, 600, 799, 800, 899]], [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3], rtol=1e-5)
  for config, words in ((ScheduleConfig('step'), 'needs some'), (ScheduleConfig(drops=(0.5,)), 'the name is cosine'),
                        (ScheduleConfig(warmup_from=0.1), 'there is no warm-up')):
    with pytest.raises(UserError, match=words):
      check(config, 900)


def test_cosine_is_half_way_at_half_time():
  assert _course(ScheduleConfig('cosine'), 101)[50] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize('length, steps', [
    (dict(steps=7), 7), (dict(epochs=2.0), 20), (dict(epochs=0.1), 1), (dict(examples=129), 2), (dict(flops=1280.0), 1),
    (dict(flops=1281.0), 2), (dict(steps=7, epochs=0.0), 7), (dict(epochs=2.0, least_steps=300), 300),
    (dict(epochs=50.0, least_steps=300), 500), (dict(steps=7, least_steps=300), 7)])
def test_length(length, steps):
  assert num_steps(LengthConfig(**length), batch_size=128, num_examples=1280, flops_per_example=10) == steps


@pytest.mark.parametrize('length, message', [
    ({}, 'exactly one of steps, epochs, examples, flops'),
    (dict(steps=1, epochs=2.0), r'given: steps=1, epochs=2\.0\); switch one off with --config\.train\.epochs=0'),
    (dict(steps=-1), r'train\.steps=-1: that is -1 steps; must be from 1 to')])
def test_bad_lengths(length, message):
  with pytest.raises(UserError, match=message):
    num_steps(LengthConfig(**length), 128, 1280, 10)


def test_warmup_must_end_before_the_run():
  with pytest.raises(UserError, match=r'schedule\.warmup_steps=100: .*below the 100 steps'):
    check(ScheduleConfig(warmup_steps=100), 100)


@pytest.mark.parametrize('name', ['cosine', 'linear', 'rsqrt', 'wsd', 'constant', 'step'])
def test_numpy_gives_the_same_as_jax(name):
  config = ScheduleConfig(name, warmup_steps=5, drops=(0.5,) * (name == 'step'))
  host = [multiplier(config, 40, t, np) for t in range(40)]
  assert all(value.dtype == np.float32 for value in host)
  np.testing.assert_allclose(host, _course(config, 40), rtol=1e-6, atol=1e-7)
