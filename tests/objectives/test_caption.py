"""Captions: what a token may see, what is counted, and that what is written is what the model would say."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import config
from vit_jax.data import text
from vit_jax.data.text import TextConfig
from vit_jax.models import PureModel, vit
from vit_jax.models.words import attending
from vit_jax.objectives import caption, decoding
from vit_jax.optimisation import parametrisation
from vit_jax.optimisation.parametrisation import ParametrisationConfig
from vit_jax.rehearsal import job
from vit_jax.training import config as run_config

LENGTH = 10
CONFIG = vit.Config(patch_size=4, width=16, depth=2, mlp_dim=24, num_heads=2)
TOKENIZER = text.tokenizer(TextConfig(length=LENGTH), list)
TEXTS = ['a cat', 'q?\tred', 'мир', '']


def _model(length=LENGTH, **options):
  objective = caption.Caption(caption.Config(**options), TextConfig(length=length))
  return PureModel('vit', CONFIG, (8, 8, 1), 0, objective=objective)


@functools.cache
def _params(**options):
  model, rng = _model(**options), np.random.default_rng(0)
  return jax.tree.map(lambda shape: jnp.asarray(0.3 * rng.standard_normal(shape.shape), jnp.float32),
                      model.param_shapes())


def _batch(texts=TEXTS):
  found = text.Tokens.of(TOKENIZER, texts)(np.arange(len(texts)))
  images = np.random.default_rng(1).standard_normal((len(texts), 8, 8, 1)).astype(np.float32)
  return jax.tree.map(jnp.asarray, found | {'image': images, 'weight': np.ones(len(texts), np.float32)})


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params, batch, keys_B=None):
  return model.call(params, {}, lambda module: model.objective.forward(module, batch, keys_B))[0]['logits']


def test_what_a_token_may_see():
  model, params, batch = _model(), _params(), _batch()
  before = np.asarray(_logits(model, params, batch))
  starts = np.asarray(batch['answer_start'])
  assert starts.tolist() == [1, 4, 1, 1]
  for place in range(LENGTH):
    other = np.asarray(_logits(model, params, batch | {'text': batch['text'].at[:, place].add(1)}))
    changed = (other != before).any(axis=-1)
    for row, start in enumerate(starts):
      first = start if place < start else place + 1  # what comes before the answer is seen by all that is counted
      assert not changed[row, start:first].any() and changed[row, first:].all(), (place, row)
  other = np.asarray(_logits(model, params, batch | {'image': batch['image'] + 1}))
  assert (other != before).any(axis=-1).all()


def test_a_question_is_read_whole_and_the_picture_reads_it():
  model, params, batch = _model(), _params(), _batch()

  @jax.jit
  def pictures_of(params, batch):
    return decoding.read(model, params, batch)[1]

  def seen(batch):
    return np.asarray(pictures_of(params, batch)[0][1])  # keys of the second layer: what the first saw

  changed = lambda place: (seen(batch | {'text': batch['text'].at[:, place].add(1)}) != seen(batch)).any(axis=(1, 2, 3))
  assert changed(0).tolist() == changed(2).tolist() == [False, True, False, False]  # the second has a question
  assert not changed(4).any()


def test_without_a_question_the_picture_is_read_as_by_the_image_model():
  model, params, batch = _model(), _params(), _batch()

  @jax.jit
  def both(params):
    def features(module):
      x_BTD, reach_BT = model.objective.tokens(module, batch)
      x_BTD, _ = module.encoder(x_BTD, attend=attending(reach_BT, LENGTH))
      return x_BTD[:, LENGTH:], module.encoder(module.embed(batch['image']))[0]
    return model.call(params, {}, features)[0]

  with_text, alone = jax.device_get(both(params))
  same = np.isclose(with_text, alone, atol=1e-5).all(axis=(1, 2))
  assert same.tolist() == [True, False, True, True]


def test_tied_logits_are_products_with_the_table():
  model, params, batch = _model(tied=True), _params(tied=True), _batch()
  assert 'head' not in params['words']
  table = params['words']['table']
  moved = params | {'words': params['words'] | {'table': table.at[250].mul(2)}}  # no text has it
  before, after = (np.asarray(_logits(model, p, batch)) for p in (params, moved))
  np.testing.assert_allclose(after[..., 250], 2 * before[..., 250], rtol=1e-4, atol=1e-5)


def test_predicted_at_once_tokens_see_no_other_of_the_answer():
  model = _model(parallel=0.999999)
  params, batch, keys = _params(parallel=0.999999), _batch(), jax.random.split(jax.random.key(0), len(TEXTS))
  before = np.asarray(_logits(model, params, batch, keys))
  other = batch | {'text': jnp.where(jnp.arange(LENGTH)[None] >= batch['answer_start'][:, None], 7, batch['text'])}
  np.testing.assert_array_equal(_logits(model, params, other, keys), before)
  assert (np.asarray(_logits(model, params, other)) != before).any()  # in evaluation one after another


def test_loss_counts_the_tokens_of_the_answer():
  model, params, batch = _model(), _params(), _batch()
  logits_BNV = np.asarray(_logits(model, params, batch), np.float64)
  values = jax.device_get(model.objective.loss({'logits': jnp.asarray(logits_BNV, jnp.float32)}, batch))
  log_p = logits_BNV - np.log(np.exp(logits_BNV).sum(-1, keepdims=True))
  nats, tokens = np.zeros(4), [6, 4, 7, 1]  # with the end
  for row, (start, count) in enumerate(zip(np.asarray(batch['answer_start']), tokens)):
    for place in range(start, start + count):
      nats[row] -= log_p[row, place, batch['text'][row, place]]
  np.testing.assert_allclose(values['nats'], nats, rtol=1e-5)
  np.testing.assert_allclose(values['loss'], nats / tokens, rtol=1e-5)
  assert values['tokens'].tolist() == tokens and values['answer_bytes'].tolist() == [5, 3, 6, 0]
  means = {name: float(np.mean(value)) for name, value in values.items()}
  report = model.objective.report(means)
  assert report['bits_per_byte'] == pytest.approx(nats.sum() / math.log(2) / 14, rel=1e-5)
  assert report['accuracy'] == pytest.approx(values['correct'].sum() / 18)


def test_exact_counts_the_answers_that_are_right_to_the_last_token():
  objective, batch = _model().objective, _batch()
  right_BNV = np.array(jax.nn.one_hot(batch['text'], 300))  # of questions and padding too
  ends = np.asarray(batch['answer_start']) + [5, 3, 6, 0]  # the places of the end tokens
  almost_BNV = right_BNV.copy()
  almost_BNV[0, ends[0]], almost_BNV[2, ends[2] + 1:] = 0, 0  # an answer that does not end; what follows an end
  before = int(batch['answer_start'][1]) - 1
  almost_BNV[1, before] = 0  # a token of a question, or the one that all texts begin with
  exact = lambda logits: objective.loss({'logits': jnp.asarray(logits)}, batch)['exact'].tolist()
  assert exact(right_BNV) == [True] * 4 and exact(almost_BNV) == [False, True, True, True]
  assert objective.report({'loss': 1.0, 'nats': 1.0, 'answer_bytes': 1.0, 'correct': 1.0, 'tokens': 1.0, 'exact': 0.75}
                          )['exact'] == 0.75


def test_padding_does_not_count():
  model, params, batch = _model(), _params(), _batch()
  absent = batch | {'text': jnp.zeros_like(batch['text']), 'answer_start': jnp.zeros_like(batch['answer_start'])}
  values = model.objective.loss({'logits': _logits(model, params, absent)}, absent)
  assert not np.any(jax.device_get([values['loss'], values['nats'], values['tokens']]))


@functools.partial(jax.jit, static_argnums=0)
def _greedy(model, params, batch):
  return decoding.greedy(model, params, batch, TOKENIZER.end)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _beams(model, params, batch, beams):
  return decoding.beam_search(model, params, batch, TOKENIZER.end, beams)


def _before_the_answer(batch):
  return batch | {'text': jnp.where(jnp.arange(LENGTH)[None] < batch['answer_start'][:, None], batch['text'], 0)}


def test_what_is_written_is_what_teacher_forcing_finds_likeliest():
  model, params, batch = _model(), _params(), _before_the_answer(_batch())
  written = np.asarray(_greedy(model, params, batch)[0])
  likeliest = np.asarray(jnp.argmax(_logits(model, params, batch | {'text': jnp.asarray(written)}), axis=-1))
  lengths = text.lengths(written)
  for row, start in enumerate(np.asarray(batch['answer_start'])):
    np.testing.assert_array_equal(written[row, :start], batch['text'][row, :start])
    np.testing.assert_array_equal(written[row, start:lengths[row]], likeliest[row, start:lengths[row]])
  assert (lengths > np.asarray(batch['answer_start'])).all()


def test_one_beam_is_greedy_and_more_are_likelier():
  model, params, batch = _model(), _params(), _before_the_answer(_batch())
  (greedy, likelihood), (one, score) = _greedy(model, params, batch), _beams(model, params, batch, 1)
  np.testing.assert_array_equal(one[:, 0], greedy)
  np.testing.assert_allclose(score[:, 0], likelihood, rtol=1e-5)
  several, scores = jax.device_get(_beams(model, params, batch, 3))
  assert (np.diff(scores, axis=1) <= 0).all() and (scores[:, 0] >= score[:, 0] - 1e-4).all()
  for k in range(3):  # the scores are those of the texts
    one = batch | {'text': jnp.asarray(several[:, k])}
    nats = model.objective.loss({'logits': _logits(model, params, one)}, one)['nats']
    np.testing.assert_allclose(-np.asarray(nats), scores[:, k], rtol=1e-4)
  assert all(len({tuple(text) for text in row}) == 3 for row in several.tolist())


def test_the_end_token_stops():
  model, params, batch = _model(), _params(), _before_the_answer(_batch())
  kernel = params['words']['head']
  ends = params | {'words': params['words'] | {'head': kernel | {'bias': kernel['bias'].at[TOKENIZER.end].set(1e4)}}}
  written = np.asarray(_greedy(model, ends, batch)[0])
  assert TOKENIZER.decode(written) == ['', 'q?\t', '', '']
  best, scores = jax.device_get(_beams(model, ends, batch, 2))
  np.testing.assert_array_equal(best[:, 0], written)
  assert np.abs(scores[:, 0]).max() < 1e-3


def test_names_are_scored_as_by_teacher_forcing():
  model, params = _model(), _params()
  score = jax.jit(functools.partial(decoding.log_likelihoods, model))
  for question in ('', 'q?\t'):
    names = [question + name for name in ('cat', 'мир', 'a')]
    answers = text.Tokens.of(TOKENIZER, names)(np.arange(3))
    batch = _before_the_answer(_batch([question + 'x'] * 2))
    found = score(params, batch, {
        'text': jnp.asarray(answers['text']), 'lengths': jnp.asarray(text.lengths(answers['text']))})
    for c in range(3):
      one = batch | {'text': jnp.tile(jnp.asarray(answers['text'][c])[None], (2, 1))}
      nats = model.objective.loss({'logits': _logits(model, params, one)}, one)['nats']
      np.testing.assert_allclose(found[:, c], -np.asarray(nats), rtol=1e-5)


def test_packed_runs_are_each_as_alone():
  model, params, batch = _model(), _params(), _batch()
  both = [(params, batch), (jax.tree.map(lambda p: 0.5 * p, params), _batch(TEXTS[::-1]))]
  stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *both)
  together = jax.jit(jax.vmap(functools.partial(_logits, model)))(*stacked)
  for one, own in zip(together, both, strict=True):
    np.testing.assert_allclose(one, _logits(model, *own), atol=1e-5)


def test_mup_knows_the_table_and_the_head():
  factors = parametrisation.factors(ParametrisationConfig('mup', base_width=8), 'adamw', _model())['words']
  assert [factors[name].learning_rate for name in ('table', 'places', 'start')] == [1, 1, 1]
  assert factors['head']['kernel'].learning_rate == 0.5


def test_the_plan_says_which_kernel_computes_a_masked_attention():
  c = config.defaults('vit', 'caption')
  c.model.dtype = 'bfloat16'
  planned = job.Job(run_config.cast(c), (224, 224, 3), 10, 1000)
  assert planned.kernel('tpu') == ('plain', 'by the compiler; no other computes the mask of its objective')
