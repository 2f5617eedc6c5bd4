"""Estimates of a run's memory and work without compilation."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from jax.interpreters import partial_eval

import vit_jax
from vit_jax import config
from vit_jax.cost import flops, gpus, slices
from vit_jax.cost.hardware import Chip
from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.rehearsal import estimate, plan_text, roofline
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.job import Choice
from vit_jax.training import config as run_config
from vit_jax.training import state
from vit_jax.training.step import make_train_step, trace

SLICE = slices.find('v5e-8')


def _job(config):
  return job_lib.open_job(run_config.cast(config))


@pytest.fixture(name='wide')
def _wide(tiny_config):
  """A model whose dimensions are multiples of a tile's, so that only stacked biases are padded."""
  c = tiny_config
  c.model.width, c.model.mlp_dim, c.model.num_heads = 1024, 2048, 8
  return c


def test_a_run_without_its_data_set():
  job = _job(config.load_recipe('configs/vit_b16.py'))
  assert job.image_shape == (224, 224, 3) and job.num_classes == 1000
  assert job.examples == 1_281_167 - job.config.data.val_examples and job.steps == math.ceil(90 * job.examples / 1024)
  assert job.params == pytest.approx(86.4e6, rel=1e-3)


def test_what_the_config_must_specify_without_data(tmp_path):
  c = config.load_recipe('configs/vit_b16.py')
  c.data.image_size, c.data.data_dir = None, str(tmp_path)
  with pytest.raises(UserError, match='set data.image_size and data.num_classes'):
    _job(c)
  c = config.load_recipe('configs/vit_b16.py')
  c.data.source = 'tfds:somebodys_own'
  job = _job(c)
  assert job.steps is None
  assert plan_lib.estimated(job, SLICE, job_lib.choices_on(job, SLICE)[0], 16e9).chip_hours(0.4) is None


@pytest.mark.parametrize('change, said', [
    (dict(fsdp=3), r'must multiply to the 8 devices of v5e-8 \(8 chips, 2x4\), not 6'),
    (dict(data=1, tensor=8, num_heads=4), "tensor=8 does not divide 'heads' of size 4"),
    (dict(batch_size=12), r'data.batch_size=12: must be a multiple of 8 \(8 batch shards of the mesh\), such as 8'),
])
def test_choices_that_cannot_be_executed_are_refused(tiny_config, change, said):
  c = tiny_config
  for key, value in change.items():
    node = c.data if key == 'batch_size' else c.model if key == 'num_heads' else c.system.mesh
    node[key] = value
  with pytest.raises(UserError, match=said):
    job_lib.choices_on(_job(c), SLICE)


def test_slices_must_be_spanned_by_data(tiny_config):
  tiny_config.system.mesh.data, tiny_config.system.mesh.fsdp = 1, 16
  with pytest.raises(UserError, match='system.mesh.data=1: must be a multiple of the 2 slices'):
    job_lib.choices_on(_job(tiny_config), slices.find('v5e-8', 2))


@pytest.mark.parametrize('ema', [0.0, 0.9])
@pytest.mark.parametrize('name', ['adamw', 'sgd', 'adafactor', 'lion', 'muon'])
@pytest.mark.parametrize('sizes', [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_state_bytes_equal_the_sizes_of_the_arrays(wide, sizes, name, ema):
  wide.optimizer.name, wide.optimizer.ema_decay = name, ema
  job = _job(wide)
  tree = state.abstract(job.model, job.config, mesh_lib.abstract_mesh(sizes))
  size = lambda tree: sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))
  parameters, optimizer = estimate.state_bytes(job, sizes)
  assert parameters == pytest.approx(size((tree.params, tree.ema)), rel=0.03)  # the padding of stacked biases
  assert optimizer == pytest.approx(size(tree.optimizer), rel=0.03)


def test_tiles_are_along_the_dimensions_that_need_the_least_padding():
  assert estimate.tiled_bytes((12, 768, 12, 3, 64)) == 4 * 12 * 768 * 12 * 3 * 64
  assert estimate.tiled_bytes((12, 48, 12, 3, 64)) == 2 * 4 * 12 * 48 * 12 * 3 * 64
  assert estimate.tiled_bytes((3, 128)) == 4 * 4 * 128
  assert estimate.tiled_bytes((9, 128), itemsize=2) == 2 * 16 * 128  # bfloat16 packs two rows per word


def _executed(config, remat, microbatches):
  config.system.execution.remat, config.system.microbatches = remat, microbatches
  job = _job(config)
  mesh = mesh_lib.make_mesh(job.config.system.mesh)
  jaxpr = trace(job._model(remat), job.config, job.schedule_steps, mesh, job.teacher).jaxpr.jaxpr
  return job, flops._walk(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


@pytest.mark.parametrize('remat', ['none', 'dots', 'full'])
def test_executed_flops_equal_those_counted_in_the_whole_step(tiny_config, remat):
  job, counted = _executed(tiny_config, remat, 2)
  assert counted == job.executed_flops(remat) * job.config.data.batch_size
  share = job.recomputed_share(remat)
  assert share == 0 if remat == 'none' else 0 < share < 1 / 3


@pytest.mark.parametrize('name, twice', [('sigmoid', ('text',)), ('softmax', ('image', 'text'))])
def test_what_a_loss_of_pairs_needs_of_all_is_computed_twice(name, twice):
  """The sigmoid loss is a sum over slices of pictures, each among all texts."""
  c = config.defaults('vit', 'contrast')
  c.model.update(dict(patch_size=2, width=64, depth=2, mlp_dim=256, num_heads=4))
  c.loss.text.update(dict(width=64, depth=2, mlp_dim=256, num_heads=4))
  c.loss.name, c.data.text.length, c.data.batch_size, c.train.steps = name, 40, 16, 2
  c.data.source = vit_jax.arrays(np.zeros((16, 8, 8, 3), np.uint8), captions=['a cat'] * 16)
  job, counted = _executed(c, 'none', 2)
  assert counted == pytest.approx(job.executed_flops('none', 2) * 16, rel=4e-3)  # 8 B^2 E of the loss
  once = job.executed_flops('none') - job.spent_per_image
  ahead = sum(forward for part, (_, forward) in job.objective.parts(job.model).items() if part in twice)
  assert once == 0 and job.executed_flops('none', 2) == job.spent_per_image + ahead


def test_a_teacher_is_counted(taught):
  job, counted = _executed(taught, 'dots', 2)
  assert counted == job.executed_flops('dots') * job.config.data.batch_size
  taught.distill.teacher = None
  alone = _job(taught)
  assert job.flops_per_image == alone.flops_per_image and job.spent_per_image > 10 * alone.spent_per_image
  plans = [plan_lib.estimated(of, SLICE, Choice((2, 4, 1), 'none', 1), 16e9) for of in (job, alone)]
  arrays = jax.tree.leaves(job.teacher.shapes(mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 4, 1))))
  least = sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in arrays)
  assert least <= plans[0].memory.parameters - plans[1].memory.parameters < 1.1 * least
  assert plans[0].chip_hours(0.4) > 10 * plans[1].chip_hours(0.4)
  assert any(line.startswith('teacher ') for line in plan_text.lines(plans[0], 'a run', 0.4, None))


def test_less_recomputation_keeps_more(tiny_config):
  job = _job(tiny_config)
  kept = [job.kept_per_image(remat) for remat in ('none', 'dots', 'full')]
  assert kept[0] > kept[1] > kept[2] > 0


def test_micro_batches_reduce_memory_but_not_work(wide):
  job = _job(wide)
  one, two = (Choice((8, 1, 1), 'none', n) for n in (1, 2))
  assert estimate.memory(job, SLICE, two).activations == estimate.memory(job, SLICE, one).activations / 2
  assert estimate.work(job, SLICE, two).flops == estimate.work(job, SLICE, one).flops
  assert estimate.work(job, SLICE, two).hbm_bytes > estimate.work(job, SLICE, one).hbm_bytes


def test_data_parallelism_sends_twice_the_gradients(wide):
  job = _job(wide)
  work = estimate.work(job, SLICE, Choice((8, 1, 1), 'none', 1))
  assert work.within_bytes == 2 * 4 * job.params * 7 / 8 and work.between_bytes == 0
  two = estimate.work(job, slices.find('v5e-8', 2), Choice((16, 1, 1), 'none', 1))
  assert two.between_bytes == 2 * 4 * job.params / 8 / 2  # each chip sends its part to the other slice


def test_the_slowest_resource_sets_the_floor():
  chip = Chip(peak_flops=100.0, hbm_bytes=1.0, hbm_bandwidth=10.0, send_bandwidth=1.0, network_bandwidth=0.5, devices=2)
  times = roofline.times(chip, estimate.Work(flops=50.0, hbm_bytes=10.0, within_bytes=2.0, between_bytes=0.5))
  assert times == roofline.Times(1.0, 2.0, 4.0) and times.floor == 4.0 and times.limit == 'interconnect'
  unknown = dataclasses.replace(chip, network_bandwidth=None)
  assert roofline.times(unknown, estimate.Work(50.0, 10.0, 0.5, 1e9)).limit == 'hbm'


def test_the_planned_step_is_the_step_that_runs(tiny_config):
  """`trace` from shapes gives the same program as the real state and batch."""
  from vit_jax.training import run as run_lib
  run = run_lib.prepare(run_config.cast(tiny_config))
  train_state = state.create(run.model, run.config, run.mesh)
  batch = run.place(next(run.data.train_batches(0, 0, 1)))
  step = make_train_step(run.model, run.config, run.steps, device_augment.augment(run.config.data.augment))
  shardings = jax.tree.map(lambda a: a.sharding, train_state)
  whole = mesh_lib.sharding(run.mesh)
  jitted = jax.jit(mesh_lib.traced_on(run.mesh, step), donate_argnums=0, out_shardings=(shardings, whole))
  real = jitted.lower(train_state, batch).as_text()
  assert trace(run.model, run.config, run.steps, run.mesh).lower().as_text() == real


def test_gpus_store_arrays_without_tiles(tiny_config):
  job, eight = _job(tiny_config), gpus.find('h100-8')
  memory = estimate.memory(job, eight, Choice((8, 1, 1), 'none', 1))
  assert memory.parameters == 4 * job.params and memory.parameters < estimate.state_bytes(job, (8, 1, 1))[0]
  assert 8 * job.params <= memory.optimizer < 8 * job.params + 1000  # two moments and a count


def test_what_cudnn_keeps_is_estimated_without_it(wide):
  """Operands, result and a float32 of each row; the compiler's attention keeps weights [T, T] too."""
  wide.model.dtype, wide.model.patch_size = 'bfloat16', 1
  kept = {}
  for kernel in ('auto', 'plain'):
    wide.system.execution.attention_kernel = kernel
    kept[kernel] = _job(wide).kept_per_image('none', 'gpu')
  depth, heads, tokens = 2, 8, 64
  assert kept['plain'] - kept['auto'] == depth * heads * tokens * tokens * 2


def test_what_spans_hosts_is_sent_between_them(wide):
  job, sixteen = _job(wide), gpus.find('h100-16')
  by_data, by_fsdp = (estimate.work(job, sixteen, Choice(sizes, 'none', 1)) for sizes in ((16, 1, 1), (1, 16, 1)))
  assert by_data.between_bytes == 2 * 4 * job.params / 16  # each sends its part of the sum to the other host
  assert by_fsdp.between_bytes == 3 * 4 * job.params / 16  # and here of the weights twice, and of the gradients
  assert estimate.work(job, gpus.find('h100-8'), Choice((1, 8, 1), 'none', 1)).between_bytes == 0
