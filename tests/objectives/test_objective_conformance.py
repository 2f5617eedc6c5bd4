"""Every objective keeps the contract of `vit_jax.objectives.objective`: the checks of `vit_jax.testing`."""

import functools

import numpy as np
import pytest
from sklearn import datasets

import vit_jax
from vit_jax import config, testing
from vit_jax.objectives import OBJECTIVES

NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


@functools.cache
def captioned_digits():
  """The digits with two captions each."""
  digits = datasets.load_digits()
  return vit_jax.arrays((digits.images * 15).astype(np.uint8)[..., None], digits.target, class_names=NAMES,
                        captions=[(f'the digit {NAMES[i]}', f'a {NAMES[i]}') for i in digits.target])


@functools.cache
def digits_with_several_labels():
  """What holds of the digits: even, at least five, a multiple of three; nothing of 1."""
  digits = datasets.load_digits()
  labels = np.stack([digits.target % 2 == 0, digits.target >= 5, digits.target % 3 == 0], axis=1)
  return vit_jax.arrays((digits.images * 15).astype(np.uint8)[..., None], labels,
                        class_names=('even', 'large', 'of three'))


def recipe(objective, loss=(), **model):
  """A tiny run of that objective."""
  c = config.defaults('vit', objective)
  c.model.update(dict(patch_size=2, width=16, depth=2, mlp_dim=24, num_heads=4, dropout=0.1) | model)
  c.data.batch_size, c.train.steps = 8, 4
  c.data.augment.flip = True
  if objective == 'reconstruct':
    c.evaluate.probe = 60
    c.loss.update(dict(decoder_width=16, decoder_depth=1, decoder_mlp_dim=24, decoder_num_heads=2))
  if objective == 'contrast':
    c.data.source, c.data.text.length = captioned_digits(), 20
    c.loss.text.update(dict(width=16, depth=2, mlp_dim=24, num_heads=2))
  if objective == 'caption':
    c.data.source, c.data.text.length = captioned_digits(), 20
  c.update_from_flattened_dict(dict(loss))
  return c


CLIP = {'loss.name': 'softmax', 'loss.width': 12, 'loss.scale': 14.0, 'loss.text.causal': True,
        'loss.text.pool': 'end', 'loss.text.gelu': 'quick'}
CASES = {
    'classify': recipe('classify'),
    'classify, several labels': recipe('classify', {'data.source': digits_with_several_labels(), 'loss.name': 'sigmoid',
                                                    'data.augment.mixup': 0.5, 'loss.label_smoothing': 0.1}),
    'reconstruct': recipe('reconstruct', pos_embed='learned', global_tokens=1),
    'contrast': recipe('contrast'),
    'contrast, as CLIP': recipe('contrast', CLIP),
    'caption': recipe('caption', {'loss.parallel': 0.5}, global_tokens=1),
}
ONCE = (testing.resumes_as_if_undisturbed, testing.computes_the_same_on_a_mesh)  # the slower ones
SLOW = {*((name, check) for name in ('classify', 'reconstruct', 'contrast', 'caption') for check in ONCE),
        *((name, check) for name in ('contrast, as CLIP', 'classify, several labels')
          for check in testing.OBJECTIVE_CHECKS)}


def test_every_objective_has_a_case():
  assert {c.objective for c in CASES.values()} == set(OBJECTIVES)


@pytest.mark.parametrize('name, check', [
    pytest.param(name, check, marks=[pytest.mark.slow] if (name, check) in SLOW else [])
    for name in CASES for check in testing.OBJECTIVE_CHECKS], ids=lambda value: getattr(value, '__name__', value))
def test_conformance(name, check, tmp_path):
  check(CASES[name], tmp_path)
