"""A run that reads text: resumed and divided like any other, with the tokenizer that it has learnt in its folder."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import vit_jax
from vit_jax import config, objectives, testing
from vit_jax.data import text
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.objectives.classify import Classify
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


@dataclasses.dataclass(frozen=True)
class WeighsByText(Classify):
  """Classification whose loss depends on every token that is read."""
  length: int = 0

  @classmethod
  def of(cls, config):
    return cls(config.loss, config.distill, config.data.text.length)

  def inputs(self, image_shape):
    return super().inputs(image_shape) | {'text': jax.ShapeDtypeStruct((self.length,), jnp.int32)}

  def loss(self, outputs, batch):
    values = super().loss(outputs, batch)
    return values | {'loss': values['loss'] * (1 + jnp.mean(batch['text'].astype(jnp.float32), -1) / 100)}


@pytest.fixture(name='recipe', params=['drawn', pytest.param('one each', marks=pytest.mark.slow)])
def _recipe(monkeypatch, request):
  """Of captions of which some are drawn by the host, or of one each, which go to the devices as the pictures do."""
  monkeypatch.setitem(objectives.OBJECTIVES, 'text', WeighsByText)
  images, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8), np.arange(60) % 3
  captions = [[f'a {i}', f'ein {i}'][:1 if request.param == 'one each' else 2] for i in range(60)]
  c = config.defaults('vit', 'text')
  c.model.update(dict(patch_size=4, width=8, depth=1, mlp_dim=8, num_heads=2))
  c.data.source, c.data.batch_size, c.train.steps = vit_jax.arrays(images, labels, captions=captions), 8, 4
  c.data.text.tokenizer, c.data.text.length, c.data.text.vocab_size = 'bpe', 6, 270
  c.system.log_every = 1
  return c


def test_a_stopped_run_ends_as_an_undisturbed_one(recipe, tmp_path):
  pytest.importorskip('tokenizers')
  testing.resumes_as_if_undisturbed(recipe, tmp_path)
  saved = (tmp_path / 'stopped' / 'tokenizer.json').read_text()
  made = text.tokenizer(TextConfig(f'{tmp_path}/stopped/tokenizer.json', 6), None)
  assert json.loads(saved)['model']['type'] == 'BPE' and made.decode(made.encode(['ein 7'])) == ['ein 7']


@pytest.mark.slow
def test_it_computes_the_same_on_any_mesh(recipe, tmp_path):
  pytest.importorskip('tokenizers')
  testing.declares_what_it_reports(recipe, tmp_path)
  testing.computes_the_same_on_a_mesh(recipe, tmp_path)


def test_captions_that_are_cut_off_are_counted_in_the_header(recipe, tmp_path, capsys):
  recipe.data.text.tokenizer = 'bytes'
  for length, said in ((5, True), (8, False)):  # 'ein 59', with its begin and end, has 8 tokens
    recipe.data.text.length = length
    run = run_lib.prepare(run_config.cast(recipe))
    cut, count = run.data.cut_off('train')
    assert (cut > 0) == said and count >= len(run.data.labels('train'))
    Display(Console(width=200)).header(run, 'name', tmp_path)
    header = capsys.readouterr().out
    assert (f'texts     {cut:,} of {count:,} training captions are longer than data.text.length=5' in header) == said
  assert run.data.cut_off('train')[0] == 0


def test_another_tokenizer_is_another_run_and_data_without_captions_are_refused(recipe):
  recipe.data.text.tokenizer = 'bytes'
  run = run_lib.prepare(run_config.cast(recipe))
  assert run.learnt_tokenizer is None and run.entries == ('image', 'label', 'text')
  recipe.data.text.length = 5
  other = run_lib.prepare(run_config.cast(recipe))
  assert run.config_hash != other.config_hash and run.fingerprints['val'] != other.fingerprints['val']
  recipe.data.source = 'digits'
  with pytest.raises(UserError, match='digits: has no captions'):
    run_lib.prepare(run_config.cast(recipe))
