"""Both towers, the logits and the loss are those of transformers' SiglipModel and CLIPModel."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data.text import TextConfig
from vit_jax.interop import huggingface, layer_names
from vit_jax.interop import rules as rules_lib
from vit_jax.interop.rules import attention, dense, mlp, norm, same
from vit_jax.interop.tensors import Tensors
from vit_jax.models import PureModel, text
from vit_jax.objectives import contrast

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
SHAPE = dict(width=16, depth=2, mlp_dim=24, num_heads=2, vocab_size=40)
FORMS = {
    'siglip': contrast.Config(text=text.Config(**SHAPE, pool='last', gelu='tanh')),
    'clip': contrast.Config(name='softmax', width=12, text=text.Config(**SHAPE, causal=True, pool='end', gelu='quick',
                                                                       epsilon=1e-5)),
}


def _rules(kind):
  block, theirs = 'text.encoder.blocks.{i}', 'text_model.encoder.layers.{i}'
  embeddings = 'text_model.embeddings'
  projections = dense('text.projection', 'text_model.head') if kind == 'siglip' else [
      *same('text.projection.kernel', 'I O', 'text_projection.weight', 'O I'),
      *same('projection.kernel', 'I O', 'visual_projection.weight', 'O I')]
  return [*same('text.tokens', 'V D', f'{embeddings}.token_embedding.weight'),
          *same('text.positions', 'T D', f'{embeddings}.position_embedding.weight'),
          *norm(f'{block}.norm1', f'{theirs}.layer_norm1'), *norm(f'{block}.norm2', f'{theirs}.layer_norm2'),
          *attention(f'{block}.attention', [f'{theirs}.self_attn.{name}_proj' for name in 'qkv'],
                     f'{theirs}.self_attn.out_proj'),
          *mlp(f'{block}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2'),
          *norm('text.norm', 'text_model.final_layer_norm'), *projections]


def assert_parity(kind, arrays):
  theirs = {name.partition(':')[2]: value for name, value in arrays.items() if name.startswith('param:')}
  tensors = Tensors('golden', {name: value.shape for name, value in theirs.items()}, frozenset(), theirs.__getitem__)
  image = huggingface.read(tensors, json.loads(str(arrays['config'])), None)
  objective = contrast.Contrast(FORMS[kind], TextConfig(length=6))
  model = PureModel('vit', image.config, (8, 8, 3), 0, objective=objective)
  like = {name: tree for name, tree in model.param_shapes().items() if name in ('text', 'projection')}
  flat = rules_lib.read(rules_lib.bind(_rules(kind), layer_names.flat_shapes(like)), theirs.__getitem__, {})
  params = image.params | layer_names.stacked(flat.__getitem__, like)
  params |= {ours: theirs[name].reshape(()) for ours, name in (('log_scale', 'logit_scale'), ('bias', 'logit_bias'))
             if name in theirs}
  batch = {'image': jnp.asarray(arrays['pixels'].transpose(0, 2, 3, 1)), 'weight': jnp.ones(5),
           'text': jnp.asarray(arrays['tokens'], jnp.int32)}

  def computed(params):
    outputs, _ = model.call(params, {}, lambda module: objective.forward(module, batch))
    logits = outputs['scale'][0] * outputs['image'] @ outputs['text'].T + outputs['bias'][0]
    return logits, jnp.mean(objective.loss(outputs, batch)['loss'])

  logits, loss = jax.jit(computed)(params)
  np.testing.assert_allclose(logits, arrays['logits'], atol=1e-4)
  assert float(loss) == pytest.approx(float(arrays['loss']), rel=1e-5)


@pytest.mark.parametrize('kind', FORMS)
def test_it_computes_what_transformers_computes(kind):
  with np.load(GOLDEN / f'{kind}.npz') as file:
    assert_parity(kind, dict(file))


@pytest.mark.parametrize('kind', FORMS)
def test_live_transformers(kind):
  pytest.importorskip('torch')
  pytest.importorskip('transformers', minversion='5.23.0')
  assert_parity(kind, runpy.run_path(str(GOLDEN / 'make_pairs_golden.py'))['arrays'](kind, seed=3))
