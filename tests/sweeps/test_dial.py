"""One dial: each rule by hand, a law of rates, and the recipe that uses it."""

import json

import numpy as np
import pytest

from vit_jax import config
from vit_jax.errors import UserError
from vit_jax.scaling import estimate, frontier, law_file
from vit_jax.sweeps import dial, next_run
from vit_jax.training import config as run_config

REFERENCE = dial.Reference(width=64, depth=3, examples=1e5, batch_size=32, learning_rate=4e-3, timescale=0.25,
                           warmup=0.1)


@pytest.fixture(name='law')
def _law(tmp_path):
  """D* = 50 N, at two budgets."""
  path = tmp_path / 'law.json'
  path.write_text(json.dumps({'form': 'chinchilla', 'coefficients': {'E': 0.1}, 'compute_optimal': {'rows': [
      {'params': 1e4, 'examples': 5e5}, {'params': 1e5, 'examples': 5e6}]}}))
  return str(path)


def turned(arg, law):
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool, c.schedule.name = 7, 'gap', 'wsd'
  c.data.source, c.data.image_size, c.data.channels, c.data.num_classes = 'fashion_mnist', (28, 28), 1, 10
  dial.turn(c, arg, REFERENCE, law)
  run_config.cast(c)
  return c


@pytest.mark.parametrize('depth', [1, 4])
def test_each_rule(depth, law):
  c = turned(f'depth={depth}', law)
  assert (c.model.depth, c.model.width, c.model.num_heads, c.model.mlp_dim) == (depth, 64 * depth, depth, 256 * depth)
  params = next_run.Sizes(c.to_dict(), 'params').params({})
  assert c.train.examples == pytest.approx(50 * params, rel=0.01)  # whole steps
  longer, steps = c.train.examples / 1e5, c.train.examples / c.data.batch_size
  assert np.log2(c.data.batch_size) == pytest.approx(np.log2(32 * longer ** 0.383), abs=0.51) and steps % 1 == 0
  rate = 4e-3 * (c.data.batch_size / 32) ** 0.5 * longer ** -0.32
  assert c.optimizer.learning_rate == pytest.approx(rate, rel=0.01)
  assert 1 / (c.optimizer.learning_rate * c.optimizer.weight_decay) == pytest.approx(0.25 * steps, rel=0.01)
  assert c.schedule.warmup_steps == pytest.approx(0.1 * steps, abs=1)
  assert (c.parametrisation.name, c.parametrisation.base_width, c.parametrisation.base_depth) == ('mup', 64, 3)


def test_a_law_of_rates_replaces_the_rule(law, tmp_path):
  rates = tmp_path / 'rates.json'
  rates.write_text(json.dumps({'form': 'c * N^-a * D^b', 'coefficients': {'c': 2.0, 'a': 0.5, 'b': -0.1}}))
  c = turned(f'depth=2,rates={rates}', law)
  params = next_run.Sizes(c.to_dict(), 'params').params({})
  assert c.optimizer.learning_rate == pytest.approx(2 * params ** -0.5 * (50 * params) ** -0.1, rel=0.01)
  assert c.parametrisation.name == 'standard'


def test_a_fitted_law_gives_the_length(tmp_path):
  """D* of a law.json is that of the formula: alpha A N^-alpha = beta B D^-beta."""
  n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e5, 1e7, 6), np.geomspace(1e6, 1e8, 6)))
  fit = estimate.fit('chinchilla', {'params': n, 'examples': d}, 0.2 + 20 * n ** -0.4 + 30 * d ** -0.35)
  rows = frontier.compute_optimal(fit, None, np.geomspace(1e12, 1e15, 4), frontier.Cost())
  path = tmp_path / 'law.json'
  path.write_text(json.dumps({'form': 'chinchilla', 'coefficients': fit.coefficients,
                              'compute_optimal': {'rows': rows}}))
  c = turned('depth=3', str(path))
  params = next_run.Sizes(c.to_dict(), 'params').params({})
  assert c.train.examples == pytest.approx((0.35 * 30 / (0.4 * 20) * params ** 0.4) ** (1 / 0.35), rel=0.02)


@pytest.mark.parametrize('arg, words', [
    ('8', "expected depth=NUMBER.*got '8'"), ('depth=0', 'from 1 to 128, such as depth=8, got depth=0'),
    ('depth=two', 'got depth=two'), ('depth=129', 'from 1 to 128'),
    ('dpeth=2', "unknown 'dpeth'; did you mean 'depth'"), ('depth=2,depth=3', "got 'depth=3'"),
    ('law=x', 'such as depth=8'), ('depth=2,law=nowhere.json', 'no such file')])
def test_wrong_arguments(arg, words, law):
  with pytest.raises(UserError, match=words):
    turned(arg, law)


@pytest.mark.parametrize('text, words', [
    ('{', 'expected a law.json'), ('{"a": {"coefficients": {}}}', 'of one law'),
    ('{"form": "power", "coefficients": {"b": 1}, "compute_optimal": null}', 'power has 0 compute-optimal sizes')])
def test_files_that_are_no_law_of_sizes(text, words, tmp_path):
  (tmp_path / 'law.json').write_text(text)
  with pytest.raises(UserError, match=words):
    turned('depth=2', str(tmp_path / 'law.json'))


@pytest.mark.parametrize('form, coefficients, words', [
    ('power', {'b': 2.0, 'c': -0.5}, 'power is in x; expected one in params and examples'),
    ('c * N^-a * D^b', {'c': 2.0, 'q': 1.0}, 'has the coefficients c, q')])
def test_laws_of_rates_that_are_none_of_sizes_and_lengths(form, coefficients, words, law, tmp_path):
  (tmp_path / 'rates.json').write_text(json.dumps({'form': form, 'coefficients': coefficients}))
  with pytest.raises(UserError, match=words):
    turned(f'depth=2,rates={tmp_path}/rates.json', law)


def test_the_value_of_a_built_in_form():
  law = {'form': 'chinchilla', 'coefficients': {'E': 0.2, 'A': 20, 'alpha': 0.4, 'B': 30, 'beta': 0.35}}
  assert law_file.value(law, 1e6, 1e7) == pytest.approx(0.2 + 20 * 1e6 ** -0.4 + 30 * 1e7 ** -0.35)


def test_the_recipe():
  c = config.load_recipe('ladder')
  assert (c.model.depth, c.model.width) == (1, 64) and c.parametrisation.name == 'mup'
  assert config.load_recipe('ladder:depth=3').train.examples > c.train.examples
