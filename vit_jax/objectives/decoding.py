"""What a model of objective=caption writes, and how likely it finds a text; pure functions of parameters and arrays.

The picture, and the question if there is one, are read once. Their keys and values are kept (the cache), and so are
those of each token that is written, so that a step computes one token.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.models import PureModel
from vit_jax.models.words import attending
from vit_jax.objectives.caption import logits, surprise
from vit_jax.objectives.objective import Batch
from vit_jax.parallel.blocks import Stream


def greedy(model: PureModel, params: dict, batch: Batch, end: int) -> tuple[jax.Array, jax.Array]:
  """The likeliest token at each step, until `end` or until the row is full.

  Args:
    model: of objective=caption.
    params: its parameters.
    batch: 'image' [B, H, W, C], as the model takes them; 'text' int32 [B, N] with what comes before the answer, zeros
      after it; 'answer_start' [B].
    end: the number of the token that ends a text.

  Returns:
    int32 [B, N], with zeros after the end, and log p of the answers [B].
  """
  texts, pictures, logits_BV = read(model, params, batch)
  done_B = batch['answer_start'] >= batch['text'].shape[1]
  start = (batch['text'], batch['answer_start'], done_B, texts, logits_BV, jnp.zeros(len(done_B)))

  def step(state):
    text_BN, place_B, done_B, texts, logits_BV, score_B = state
    token_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    score_B += jnp.where(done_B, 0.0, jnp.max(jax.nn.log_softmax(logits_BV), axis=-1))
    text_BN, place_B, done_B = _written(text_BN, place_B, done_B, token_B, end)
    logits_BTV, texts = advance(model, params, texts, pictures, token_B[:, None], place_B[:, None])
    return text_BN, place_B, done_B, texts, logits_BTV[:, 0], score_B

  text_BN, *_, score_B = jax.lax.while_loop(_unfinished, step, start)
  return text_BN, score_B


def beam_search(model: PureModel, params: dict, batch: Batch, end: int, beams: int) -> tuple[jax.Array, jax.Array]:
  """The likeliest texts that are found when the best `beams` beginnings are kept at each step.

  Texts are compared by log p as a whole, whatever their length. Arguments are those of `greedy`.

  Returns:
    int32 [B, beams, N] and log p [B, beams], best first.
  """
  texts, pictures, logits_BV = read(model, params, batch)
  count, vocabulary = logits_BV.shape
  spread = lambda x: jnp.repeat(x, beams, axis=0)
  texts = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=1), texts)
  text_RN, place_R = spread(batch['text']), spread(batch['answer_start'])
  score_BK = jnp.tile(jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)[None], (count, 1))
  start = (text_RN, place_R, place_R >= text_RN.shape[1], texts, spread(logits_BV), score_BK)
  ended_V = jnp.where(jnp.arange(vocabulary) == 0, 0.0, -jnp.inf)  # a text that has ended goes on as it is

  def step(state):
    text_RN, place_R, done_R, texts, logits_RV, score_BK = state
    log_p_RV = jnp.where(done_R[:, None], ended_V[None], jax.nn.log_softmax(logits_RV))
    total_BKV = score_BK[:, :, None] + log_p_RV.reshape(count, beams, vocabulary)
    score_BK, best_BK = jax.lax.top_k(total_BKV.reshape(count, -1), beams)
    from_R = (best_BK // vocabulary + beams * jnp.arange(count)[:, None]).reshape(-1)
    token_R = (best_BK % vocabulary).astype(jnp.int32).reshape(-1)
    text_RN, place_R, done_R = _written(text_RN[from_R], place_R[from_R], done_R[from_R], token_R, end)
    texts = jax.tree.map(lambda x: x[:, from_R], texts)
    logits_RTV, texts = advance(model, params, texts, pictures, token_R[:, None], place_R[:, None])
    return text_RN, place_R, done_R, texts, logits_RTV[:, 0], score_BK

  text_RN, *_, score_BK = jax.lax.while_loop(_unfinished, step, start)
  return text_RN.reshape(count, beams, -1), score_BK


def log_likelihoods(model: PureModel, params: dict, batch: Batch, answers: dict[str, jax.Array]) -> jax.Array:
  """log p of each of C answers about each picture, [B, C].

  Args:
    model: of objective=caption.
    params: its parameters.
    batch: as for `greedy`, with one question for all pictures, or none.
    answers: 'text' int32 [C, N], each with that question, and 'lengths' [C], the tokens of each with its marks.
  """
  texts, pictures, _ = read(model, params, batch)
  places_1N = jnp.arange(batch['text'].shape[1])[None]
  start_B1 = batch['answer_start'][:, None]

  def one(answer):
    text_BN = jnp.broadcast_to(answer['text'][None], batch['text'].shape)
    before_BN = jnp.pad(text_BN, ((0, 0), (1, 0)))[:, :-1]
    reach_BN = jnp.maximum(places_1N, start_B1) + 1
    logits_BNV, _ = advance(model, params, texts, pictures, before_BN, jnp.broadcast_to(places_1N, text_BN.shape),
                            reach_BN)
    return -jnp.sum(surprise(logits_BNV, text_BN), axis=1,
                    where=(places_1N >= start_B1) & (places_1N < answer['lengths']))

  return jax.lax.map(one, answers).T


def read(model: PureModel, params: dict, batch: Batch) -> tuple[Any, Any, jax.Array]:
  """Reads pictures and what comes before the answer.

  Returns:
    The keys and values [L, B, N, H, K] of the text, those [L, B, P, H, K] of the pictures, and the logits [B, V] of the
    first token of the answer.
  """
  length = batch['text'].shape[1]

  def call(module):
    x_BTD, reach_BT = model.objective.tokens(module, batch)
    keeping = lambda q, k, v, *rest: (attending(reach_BT, length)(q, k, v, *rest)[0], (k, v))
    x_BTD, kept = _through(module, x_BTD, (), lambda layer: keeping)
    first_B11 = jnp.minimum(batch['answer_start'], length - 1)[:, None, None]
    logits_B1V = logits(module, jnp.take_along_axis(x_BTD, first_B11, axis=1))
    return *zip(*((x[:, :, :length], x[:, :, length:]) for x in kept), strict=True), logits_B1V[:, 0]

  return model.call(params, {}, call)[0]


def advance(model: PureModel, params: dict, texts: Any, pictures: Any, before_RT: jax.Array, places_RT: jax.Array,
            reach_RT: jax.Array | None = None) -> tuple[jax.Array, Any]:
  """The logits [R, T, V] at some places of texts, and the keys and values with theirs.

  Args:
    model: of objective=caption.
    params: its parameters.
    texts, pictures: what `read` gave of B pictures, with R / B texts for each.
    before_RT: the token before each place.
    places_RT: the places; those beyond the end of a row are computed, and not kept.
    reach_RT: how many tokens of its text each place sees; None: those up to itself.
  """
  length = texts[0].shape[2]
  reach_RT = places_RT + 1 if reach_RT is None else reach_RT
  rows_R1 = jnp.arange(len(before_RT))[:, None]

  def call(module):
    x_RTD = module.words.embed(before_RT, places_RT)

    def attend_of(layer):
      def cached(q_RTHK, k_RTHK, v_RTHK, *rest):
        own = tuple(kept.at[rows_R1, places_RT].set(new, mode='drop')
                    for kept, new in zip(layer[0], (k_RTHK, v_RTHK), strict=True))
        every = (jnp.concatenate([text, jnp.repeat(picture, len(text) // len(picture), axis=0)], axis=1)
                 for text, picture in zip(own, layer[1], strict=True))
        return attending(reach_RT, length)(q_RTHK, *every, *rest)[0], own
      return cached

    x_RTD, kept = _through(module, x_RTD, (texts, pictures), attend_of)
    return logits(module, x_RTD), kept

  return model.call(params, {}, call)[0]


def _through(module, x_BTD, cache, attend_of):
  """Tokens through the encoder: what comes out, and what `attend_of(a layer of the cache)` gives beside, by layer."""
  stream = Stream(x_BTD.shape[1], x_BTD.shape[1], explicit=False)

  def call(block, x_BTD, layer):
    x_BTD, out = block(x_BTD, None, None, attend_of(layer), stream)
    return x_BTD, out['attention']

  return module.encoder.run(x_BTD, cache, call, module.encoder.execution)


def _unfinished(state):
  _, _, done_R, *_ = state
  return ~done_R.all()


def _written(text_RN, place_R, done_R, token_R, end):
  """(text, place, done) after a token of each row was written; rows that are done stay as they are."""
  rows, length = jnp.arange(len(text_RN)), text_RN.shape[1]
  text_RN = text_RN.at[rows, jnp.where(done_R, length, place_R)].set(token_R, mode='drop')
  return text_RN, place_R + (~done_R).astype(place_R.dtype), done_R | (token_R == end) | (place_R + 1 >= length)
