"""Masked autoencoders: what transformers' ViTMAEForPreTraining computes, the paper's counts, and use as weights."""

import copy
import dataclasses
import io
import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import config, goodput, interop, records
from vit_jax.console import Console
from vit_jax.cost import flops, slices
from vit_jax.errors import UserError
from vit_jax.inspection import reconstructions
from vit_jax.interop import huggingface, huggingface_layouts, layer_names
from vit_jax.interop import rules as rules_lib
from vit_jax.interop.tensors import Tensors
from vit_jax.layers import pos_embed
from vit_jax.models import PureModel, vit
from vit_jax.objectives import reconstruct
from vit_jax.objectives.reconstruct import Reconstruct
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.rehearsal import compiler
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.job import Choice
from vit_jax.training import config as run_config
from vit_jax.training import loop, packed
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
TINY = dict(patch_size=2, width=16, depth=1, mlp_dim=24, num_heads=2)
DECODER = dict(decoder_width=8, decoder_depth=1, decoder_mlp_dim=16, decoder_num_heads=2)


def theirs(arrays: dict[str, np.ndarray], kind: str, ours: dict) -> dict:
  """Their arrays ('param' or 'grad') as a tree like our parameters."""
  tensors = {name.partition(':')[2]: value for name, value in arrays.items() if name.startswith(f'{kind}:')}
  file = huggingface._in_file_names(Tensors('', {name: value.shape for name, value in tensors.items()}, frozenset(),
                                            tensors.__getitem__), 'vit_mae')
  rules = [*huggingface.LAYOUTS['vit_mae'].rules(None), *huggingface_layouts.mae_decoder()]
  bound = rules_lib.bind(rules, layer_names.flat_shapes(ours))
  return layer_names.stacked(rules_lib.read(bound, file.__getitem__, dict(P=4, Q=4, C=3)).__getitem__, ours)


def assert_parity(arrays: dict[str, np.ndarray]) -> None:
  """Mask, pixels, loss and the gradient of every parameter."""
  shape = json.loads(str(arrays['config']))
  size, channels = shape['image_size'], shape['num_channels']
  objective = Reconstruct(reconstruct.Config(
      shape['mask_ratio'], shape['decoder_hidden_size'], shape['decoder_num_hidden_layers'],
      shape['decoder_intermediate_size'], shape['decoder_num_attention_heads'], shape['norm_pix_loss']))
  model = PureModel('vit', vit.Config(
      patch_size=shape['patch_size'], width=shape['hidden_size'], depth=shape['num_hidden_layers'],
      mlp_dim=shape['intermediate_size'], num_heads=shape['num_attention_heads'],
      epsilon=shape['layer_norm_eps']), (size, size, channels), 10, objective=objective)
  images = jnp.asarray(arrays['images'].transpose(0, 2, 3, 1))
  keys = jax.random.split(jax.random.key(0), len(images))
  batch = objective.prepare(model, {'image': images, 'weight': jnp.ones(len(images))},
                            lambda images, targets, weights: (images, targets), keys)
  batch['order'] = jnp.argsort(jnp.asarray(arrays['noise']), axis=1)

  def loss(params):
    outputs, _ = model.call(params, {}, lambda module: objective.forward(module, batch))
    return jnp.mean(objective.loss(outputs, batch)['loss']), outputs

  params = theirs(arrays, 'param', model.param_shapes())
  (value, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  np.testing.assert_array_equal(outputs['mask'], arrays['mask'])
  np.testing.assert_allclose(outputs['pixels'], arrays['pixels'], rtol=0, atol=1e-4)
  assert float(value) == pytest.approx(float(arrays['loss']), rel=1e-5)
  arrays = dict(arrays)  # the position of CLS is part of ours, so that its gradient would count twice
  arrays['grad:vit.embeddings.position_embeddings'] = arrays['grad:vit.embeddings.position_embeddings'].copy()
  arrays['grad:vit.embeddings.position_embeddings'][:, 0] = 0
  expected = theirs(arrays, 'grad', model.param_shapes())
  for (path, ours), their in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(expected), strict=True):
    assert np.abs(their).max() > 1e-6, path
    np.testing.assert_allclose(ours, their, rtol=0, atol=1e-4 * np.abs(their).max(), err_msg=jax.tree_util.keystr(path))


def test_it_computes_what_transformers_computes():
  with np.load(GOLDEN / 'mae.npz') as file:
    assert_parity(dict(file))


@pytest.mark.parametrize('changes', [dict(norm_pix_loss=False, mask_ratio=0.5), dict(
    decoder_num_hidden_layers=2, image_size=16, hidden_size=32, num_attention_heads=2)])
def test_live_transformers(changes):
  pytest.importorskip('torch')
  pytest.importorskip('transformers', minversion='5.23.0')
  script = runpy.run_path(str(GOLDEN / 'make_mae_golden.py'))
  assert_parity(script['arrays'](script['SHAPE'] | changes, seed=2))


def test_the_decoders_positions_are_those_of_the_original_code():
  """transformers' table for 3 x 3 patches, which the golden file holds."""
  with np.load(GOLDEN / 'mae.npz') as file:
    np.testing.assert_allclose(reconstruct.positions((3, 3), 16), file['param:decoder.decoder_pos_embed'][0, 1:],
                               atol=1e-6)
  assert np.abs(pos_embed.sincos2d((3, 3), 16) - reconstruct.positions((3, 3), 16)).max() > 0.01


def _mae(size, **config):
  return PureModel('vit', vit.Config(**vit.size(size), pos_embed='sincos2d'), (224, 224, 3), 1000,
                   objective=Reconstruct(reconstruct.Config(**config)))


def test_it_has_the_published_parameters():
  """Those that transformers' facebook/vit-mae-base and -large train: all but the two fixed tables of positions."""
  for size, total, width in (('B/16', 111_907_840, 768), ('L/16', 329_541_888, 1024)):
    assert flops.params(_mae(size))[0] == total - 197 * (width + 512)


def test_it_costs_what_the_paper_says():
  """He et al. 2022: the default decoder has 9% of the FLOPs of ViT-L per token (sec. 4.1); where the encoder sees mask
  tokens too, all costs 3.3 times as many (table 1c). Matmuls alone, which are what we count, give 3.23."""
  forward = flops.per_example(_mae('L/16'))[0]
  every = _mae('L/16', mask_ratio=1 / 196)  # one patch is left out
  encoder = flops.per_example(PureModel('vit', vit.Config(**vit.size('L/16')), (224, 224, 3), 1000))[0]
  decoder = flops.per_example(every)[0] - encoder * 196 / 197
  assert decoder / encoder == pytest.approx(0.09, abs=0.005)
  assert (encoder + decoder) / forward == pytest.approx(3.3, rel=0.03)


@pytest.mark.parametrize('size, encoder, pretraining', [('B/16', 17.58, 9.781), ('L/16', 61.60, 20.756),
                                                        ('H/14', 167.40, None)])
def test_it_has_the_published_gflops(size, encoder, pretraining):
  """G multiply-adds of a picture. `encoder` over all patches: mmpretrain's table of MAE (Apache 2.0). `pretraining`:
  torch's FlopCounterMode over transformers' ViTMAEForPreTraining 5.23, the encoder over a quarter and the decoder."""
  whole = flops.per_example(PureModel('vit', vit.Config(**vit.size(size)), (224, 224, 3), 1000))[0]
  assert whole / 2e9 == pytest.approx(encoder, rel=0.002)
  if pretraining:
    assert flops.per_example(_mae(size))[0] / 2e9 == pytest.approx(pretraining, rel=1e-4)


def _recipe(**changes):
  c = config.defaults('vit', 'reconstruct')
  c.model.update(TINY)
  c.loss.update(DECODER)
  c.data.batch_size, c.train.steps = 32, 2
  c.update_from_flattened_dict(changes)
  return c


def test_masks_are_drawn_for_each_picture_and_step():
  run = run_lib.prepare(run_config.cast(_recipe()))
  batch = {'image': jnp.zeros((2, 8, 8, 1)), 'weight': jnp.ones(2)}
  plain = lambda images, targets, weights: (images, targets)
  keys = lambda seed: jax.random.split(jax.random.key(seed), 2)
  order = lambda seed: run.objective.prepare(run.model, batch, plain, keys(seed))['order']
  first = order(0)
  np.testing.assert_array_equal(np.sort(first, axis=1), np.tile(np.arange(16), (2, 1)))
  assert (first[0] != first[1]).any() and (first != order(1)).any()
  np.testing.assert_array_equal(first, order(0))


@pytest.mark.slow
def test_what_it_learns_is_a_backbone(tmp_path):
  """Weights without the decoder, from which classification and reconstruction start; no classifier."""
  run = run_lib.prepare(run_config.cast(_recipe()))
  loop.train(run, tmp_path / 'run', Display(Console(file=io.StringIO())))
  weights = interop.read(tmp_path / 'run')
  assert weights.headless and weights.class_names is None and 'decoder' not in weights.params
  with pytest.raises(UserError, match='expected a classifier, got a backbone without a head; fine-tune it first'):
    weights.pure_model()
  painter = reconstructions.load(tmp_path / 'run')
  picture = np.asarray(run.data.arrays('test')['image'][:3])
  original, kept, drawn = np.moveaxis(painter.draw(picture), 1, 0)
  np.testing.assert_array_equal(original, picture)
  left_out = (kept != picture).reshape(3, 4, 2, 4, 2).any((2, 4))  # a patch as grey as the mask looks kept
  assert (left_out.sum((1, 2)) <= 12).all() and left_out.sum() > 30
  changed = (drawn != picture).reshape(3, 4, 2, 4, 2).any((2, 4))
  assert not changed[~left_out].any() and changed.any()
  reconstructions.write(painter, ['a/x.png', 'b/x.png'], picture[:2], tmp_path / 'drawn')
  assert sorted(path.name for path in (tmp_path / 'drawn').iterdir()) == ['x-2.png', 'x.png']
  c = config.defaults('vit')
  c.train.steps, c.pretrained.path = 2, str(tmp_path / 'run')
  tuned = run_lib.prepare(run_config.cast(c))
  assert tuned.pretrained.new == ('head/bias', 'head/kernel') and tuned.config.model.width == 16
  again = run_lib.prepare(run_config.cast(_recipe(**{'pretrained.path': str(tmp_path / 'run')})))
  assert {name.partition('/')[0] for name in again.pretrained.new} == {'decoder'}
  c.pretrained.path, c.distill.teacher, c.model.patch_size = None, str(tmp_path / 'run'), 2
  with pytest.raises(UserError, match='it was trained with objective=reconstruct; a teacher is a classifier'):
    run_lib.prepare(run_config.cast(c))


@pytest.mark.slow
def test_packed_runs_equal_runs_alone(tmp_path):
  quiet = lambda: Display(Console(file=io.StringIO()))
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.devices()[:1])
  prepare = lambda seed: run_lib.prepare(run_config.cast(_recipe(**{'seed': seed, 'evaluate.probe': 200})))
  runs = [dataclasses.replace(prepare(seed), mesh=mesh) for seed in (0, 1)]
  packed.train([packed.Member(run, tmp_path / f'{i}', quiet()) for i, run in enumerate(runs)], goodput.Clock())
  loop.train(runs[1], tmp_path / 'alone', quiet())
  ours, theirs = (records.read_rows(tmp_path / name / records.METRICS) for name in ('1', 'alone'))
  assert [row['split'] for row in ours] == [row['split'] for row in theirs]
  np.testing.assert_allclose([row['loss'] for row in ours], [row['loss'] for row in theirs], rtol=1e-4)
  probed = [[row['probe/error'] for row in rows if row['split'] != 'train'] for rows in (ours, theirs)]
  assert len(probed[0]) > 1 and probed[0] == pytest.approx(probed[1], abs=0.01)  # a picture or two at the boundary


def test_it_is_planned():
  """What differentiation keeps and what is executed are counted as for classification."""
  job = job_lib.open_job(run_config.cast(_recipe()))
  assert job.flops_per_image == flops.per_example(job.model)
  kept = [job.kept_per_image(remat) for remat in ('none', 'dots', 'full')]
  assert kept[0] > kept[1] > kept[2] > 0 < job.recomputed_share('full') < 0.5


@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
def test_it_is_compiled_for_tpus():
  job = job_lib.open_job(run_config.cast(_recipe(**{'data.batch_size': 64})))
  plan = plan_lib.compiled(job, slices.find('v5e-16', 1), Choice((4, 2, 2), 'none', 1), 16 * 2**30)
  assert plan.fits and plan.outcome.hbm_bytes > 0


@pytest.mark.parametrize('changes, message', [
    ({'model.pos_embed': 'rope2d', 'model.num_heads': 4}, 'model.pos_embed=rope2d: acts between all patches'),
    ({'model.pos_embed': 'rope2d_centred', 'model.num_heads': 4}, 'model.pos_embed=rope2d_centred: acts between'),
    ({'model.attention': 'local'}, 'model.attention=local: is between neighbours'),
    ({'model.pool': 'map'}, 'model.pool=map: has parameters that objective=reconstruct does not train'),
    ({'model.patch_size': 3}, r'model.patch_size=3 does not divide'),
    ({'loss.mask_ratio': 0.95}, 'loss.mask_ratio=0.95 keeps 0 of 16 patches'),
    ({'loss.decoder_width': 12, 'loss.decoder_num_heads': 5}, 'loss.decoder_width=12: must be a multiple'),
    ({'data.augment.mixup': 0.2}, 'data.augment.mixup=0.2: mixes the targets of two pictures'),
    ({'optimizer.layer_decay': 0.7}, 'optimizer.layer_decay=0.7: is for fine-tuning'),
    ({'evaluate.metric': 'accuracy'}, "evaluate.metric='accuracy': objective=reconstruct has no such metric"),
    ({'pretrained.path': 'x', 'pretrained.probe': 'always'}, 'pretrained.probe=always: stops at a linear probe'),
    ({'distill.teacher': 'x'}, 'distill.teacher=x: a teacher is for objective=classify'),
])
def test_bad_input(changes, message):
  with pytest.raises(UserError, match=message):
    run_lib.prepare(run_config.cast(_recipe(**changes)))


def test_other_families_are_refused():
  c = config.defaults('swin', 'reconstruct')
  c.train.steps = 2
  with pytest.raises(UserError, match='family=swin: .* leaves out tokens of a transformer: for vit and deit'):
    run_config.check(run_config.cast(c))


def test_another_objective_is_given_by_a_flag():
  """It brings its own options, and it is another run."""
  c = config.defaults('vit')
  c.loss.label_smoothing = 0.1
  c.objective = 'reconstruct'
  cast = run_config.cast(c)
  assert cast.loss == reconstruct.Config() and run_config.run_hash(cast) != run_config.run_hash(
      run_config.cast(config.defaults('vit')))
  assert dataclasses.asdict(run_config.cast(config.defaults('vit', 'reconstruct'))) == dataclasses.asdict(cast)
  c.loss.decoder_width = 32
  c.objective = 'reconstruct'  # as it is
  assert c.loss.decoder_width == 32 and copy.deepcopy(c).loss.decoder_width == 32
  c.objective = 'reconstrukt'
  with pytest.raises(UserError, match="objective='reconstrukt': no such objective; did you mean 'reconstruct'"):
    run_config.cast(c)
