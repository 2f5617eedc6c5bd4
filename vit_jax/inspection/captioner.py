"""A run of objective=caption in use: what it writes about pictures, what it answers, and which name fits best."""

import dataclasses
import functools
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data import text as text_lib
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.data.text import Tokenizer
from vit_jax.errors import UserError
from vit_jax.inspection import names as names_lib
from vit_jax.inspection import own_model
from vit_jax.interop.classifier import Classifier
from vit_jax.models import PureModel
from vit_jax.objectives import decoding


@dataclasses.dataclass(frozen=True, eq=False)
class Captioner:
  """A model of objective=caption.

  Attributes:
    model: as pure functions.
    params: its parameters, on a device.
    tokenizer: of the texts that it was trained on.
    preprocessing: how a picture becomes an input.
  """
  model: PureModel
  params: dict
  tokenizer: Tokenizer
  preprocessing: Preprocessing

  def write(self, images: np.ndarray, question: str | None = None, beams: int = 1,
            cut: bool = False) -> list[list[tuple[str, float]]]:
    """Of each picture uint8 [B, H, W, C] the captions, or answers, and log p of each in nats; the likeliest first.

    Args:
      images: prepared pictures.
      question: what is asked about all of them; None: nothing.
      beams: how many beginnings are kept (`decoding.beam_search`), and how many texts come back; 1: greedy.
      cut: whether a question that is too long is cut off, as in training, and not refused.

    Raises:
      UserError: the question is empty, or longer than the texts of the model.
    """
    text_N, start = self.prefix(question, cut)
    texts, scores = jax.device_get(self._written(self.params, images, text_N, start, beams))
    first = 0 if question is None else 1  # of the question and the answer
    read = lambda rows: [text.split(text_lib.QUESTION_END, first)[-1] for text in self.tokenizer.decode(rows)]
    return [list(zip(read(rows), map(float, own))) for rows, own in zip(texts, scores, strict=True)]

  def log_likelihoods(self, images: np.ndarray, answers: Sequence[str], question: str | None = None) -> np.ndarray:
    """log p of each answer, in nats, divided by its UTF-8 bytes: float32 [B, answers]. Raises as `write` does."""
    return self._log_p(images, answers, question) / _sizes(map(text_lib.composed, answers))

  def log_p(self, images: np.ndarray, answer: str, question: str | None = None) -> float:
    """log p of an answer about one picture [1, H, W, C], in nats; of what is too long, as far as training reads it."""
    return float(self._log_p(images, [answer], question, cut=True)[0, 0])

  def _log_p(self, images, answers, question, cut=False):
    """log p of each answer, in nats, float32 [B, answers]."""
    _, start = self.prefix(question, cut)
    answers = list(map(text_lib.composed, answers))
    before = '' if question is None else _clean(question) + text_lib.QUESTION_END
    found = text_lib.Tokens.of(self.tokenizer, [before + answer for answer in answers])(np.arange(len(answers)))
    sizes = _sizes(answers)
    if not cut and (bad := (found['answer_bytes'] < sizes) | (sizes == 0)).any():
      raise UserError(f'{answers[int(np.argmax(bad))]!r}: expected a text of at most '
                      f'{self.tokenizer.length} tokens with its marks (data.text.length of the run)')
    known = {'text': found['text'], 'lengths': text_lib.lengths(found['text'])}
    return np.asarray(self._likelihoods(self.params, images, found['text'][0], start, known))

  def prefix(self, question: str | None, cut: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 [N] before the answer, then zeros; how many they are). Arguments are those of `write`."""
    if question is not None and not (question := _clean(question)) and not cut:
      raise UserError("--ask='': expected a question, as in --ask='what animal is this?'")
    found = text_lib.Tokens.of(self.tokenizer, ['' if question is None else question + text_lib.QUESTION_END])([0])
    start = found['answer_start'][0]
    row = found['text'][0] * (np.arange(self.tokenizer.length) < start)
    read = start - 1 - (self.tokenizer.begin is not None)
    if question is not None and not cut and read < len(self.tokenizer.ids([question])[0]):
      raise UserError(f'--ask={question!r}: too long for the texts of this model, which have {self.tokenizer.length} '
                      'tokens with their marks and the answer')
    return row, start

  @functools.cached_property
  def _written(self):
    def written(params, images, text_N, start, beams):
      batch = self._batch(images, text_N, start)
      if beams > 1:
        return decoding.beam_search(self.model, params, batch, self.tokenizer.end, beams)
      return jax.tree.map(lambda x: x[:, None], decoding.greedy(self.model, params, batch, self.tokenizer.end))
    return jax.jit(written, static_argnums=4)

  @functools.cached_property
  def _likelihoods(self):
    return jax.jit(lambda params, images, text_N, start, answers: decoding.log_likelihoods(
        self.model, params, self._batch(images, text_N, start), answers))

  def _batch(self, images, text_N, start):
    plain = lambda images, targets, weights: (self.preprocessing.normalize(images), targets)
    rows = lambda x: jnp.broadcast_to(x[None], (len(images), *x.shape))
    batch = {'image': images, 'weight': jnp.ones(len(images)), 'text': rows(text_N), 'answer_start': rows(start)}
    return self.model.objective.prepare(self.model, batch, plain, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByLikelihood(Classifier):
  """A classifier whose classes are any names: shares of 1, by log p per byte of the texts about each.

  Attributes:
    captioner: the model.
    templates: texts with {} in the place of a name; their scores are averaged.
    question: what is asked; None: nothing.
  """
  captioner: Captioner
  templates: tuple[str, ...]
  question: str | None

  def forward(self, images_BHWC):
    texts = [template.replace('{}', name) for template in self.templates for name in self.class_names]
    scores = self.captioner.log_likelihoods(images_BHWC, texts, self.question)
    return jax.nn.softmax(scores.reshape(len(scores), len(self.templates), -1).mean(1), axis=1)


def load(workdir: str | os.PathLike, step: int | None = None) -> Captioner:
  """The model of a run of objective=caption.

  Raises:
    UserError: it is no such run, has no checkpoint, or its tokenizer is not there.
  """
  own = own_model.load(workdir, step, 'caption')
  return Captioner(own.model, jax.device_put(own.weights.params, jax.local_devices()[0]),
                   own_model.tokenizer(workdir, own.config), own.weights.preprocessing)


def by_name(captioner: Captioner, names: Sequence[str], templates: Sequence[str] | None = None,
            question: str | None = None) -> ByLikelihood:
  """The model as a classifier of these names.

  Raises:
    UserError: fewer than two names, one twice, or a template without {}.
  """
  templates = tuple(templates or ('{}',))
  names_lib.check(names, templates)
  return ByLikelihood(class_names=tuple(names), preprocessing=captioner.preprocessing, captioner=captioner,
                      templates=templates, question=question)


def _clean(question):
  return text_lib.composed(' '.join(question.split()))


def _sizes(texts):
  """UTF-8 bytes of each."""
  return np.array([len(text.encode(errors='replace')) for text in texts])
