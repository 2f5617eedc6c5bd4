"""Both towers, their tokens, the logits and the loss are those of transformers' SiglipModel and CLIPModel."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.inspection import pair_model
from vit_jax.interop import tensors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
KINDS = ('siglip', 'clip')


def golden(kind):
  with np.load(GOLDEN / f'{kind}.npz') as file:
    return dict(file)


def folder_of(path, arrays, config=None):
  """A folder as `save_pretrained` writes it."""
  path.mkdir()
  parts = {name.partition(':')[2]: value for name, value in arrays.items() if name.startswith('param:')}
  tensors.write(path / 'model.safetensors', parts)
  (path / 'config.json').write_text(json.dumps(config or json.loads(str(arrays['config']))))
  for name, value in arrays.items():
    if name.startswith('file:'):
      (path / name.partition(':')[2]).write_bytes(value.tobytes())
  return path


def assert_parity(arrays, folder):
  pairs = pair_model.load(folder_of(folder, arrays))
  embedder, texts = pairs.embedder, json.loads(str(arrays['texts']))
  tokens, theirs = embedder.tokenizer.encode(texts), arrays['tokens']
  if pairs.loss == 'softmax':  # what follows CLIP's end token changes nothing
    theirs = np.where(np.cumsum(theirs == embedder.tokenizer.end, axis=1) - (theirs == embedder.tokenizer.end) > 0, 0,
                      theirs)
  np.testing.assert_array_equal(tokens, theirs)
  batch = {'image': jnp.asarray(arrays['pixels'].transpose(0, 2, 3, 1)), 'weight': jnp.ones(len(texts)),
           'text': jnp.asarray(tokens)}

  def computed(params):
    outputs, _ = embedder.model.call(params, {}, lambda module: embedder.model.objective.forward(module, batch))
    logits = outputs['scale'][0] * outputs['image'] @ outputs['text'].T + outputs['bias'][0]
    return logits, jnp.mean(embedder.model.objective.loss(outputs, batch)['loss'])

  logits, loss = jax.jit(computed)(embedder.params)
  np.testing.assert_allclose(logits, arrays['logits'], atol=1e-4)
  assert float(loss) == pytest.approx(float(arrays['loss']), rel=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_it_computes_what_transformers_computes(kind, tmp_path):
  assert_parity(golden(kind), tmp_path / kind)


@pytest.mark.parametrize('kind', KINDS)
def test_live_transformers(kind, tmp_path):
  for name in ('torch', 'sentencepiece'):
    pytest.importorskip(name)
  pytest.importorskip('transformers', minversion='5.23.0')
  assert_parity(runpy.run_path(str(GOLDEN / 'make_pairs_golden.py'))['arrays'](kind, seed=3), tmp_path / kind)


def test_what_a_folder_lacks_or_adds_is_named(tmp_path):
  arrays = golden('siglip')
  config = json.loads(str(arrays['config']))
  refused = {
      'a_tokenizer': (arrays | {'file:spiece.model': np.ones(9, np.uint8)}, config, 'no model of SentencePiece'),
      'a_tensor': ({k: v for k, v in arrays.items() if 'text_model.head.bias' not in k}, config,
                   'missing: text_model.head.bias'),
      'an_option': (arrays, config | {'text_config': config['text_config'] | {'is_causal': True}}, 'is_causal=True'),
      'a_size': (arrays, config | {'text_config': config['text_config'] | {'vocab_size': 65}},
                 r'text_model.embeddings.token_embedding.weight \(expected \[65, 16\], got \[64, 16\]\)'),
      'a_pad': (arrays | {'file:tokenizer_config.json': np.frombuffer(b'{"pad_token": "<x>"}', np.uint8)}, config,
                "has no token '<x>'")}
  for name, (files, settings, words) in refused.items():
    with pytest.raises(UserError, match=words):
      pair_model.load(folder_of(tmp_path / name, files, settings))
  files = {name: value for name, value in arrays.items() if not name.startswith('file:')}
  with pytest.raises(UserError, match='expected a tokenizer, tokenizer.json or spiece.model'):
    pair_model.load(folder_of(tmp_path / 'none', files))
  with pytest.raises(UserError, match='expected a run of objective=contrast, a SigLIP or CLIP'):
    pair_model.load(tmp_path)
