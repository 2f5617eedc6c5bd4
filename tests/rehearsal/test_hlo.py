"""Accounting of compiled programs, on short texts and on programs whose collectives are known."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.rehearsal import collectives, hlo, traffic

LOOP = '''HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%inner_body (p: (s32[], bf16[16,128])) -> (s32[], bf16[16,128]) {
  %p = (s32[]{:T(128)}, bf16[16,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = bf16[16,128]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %reduced = bf16[16,128]{1,0:T(8,128)(2,1)} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %next = (s32[]{:T(128)}, bf16[16,128]{1,0:T(8,128)(2,1)}) tuple(%i, %reduced)
}

%inner_condition (p: (s32[], bf16[16,128])) -> pred[] {
  %p = (s32[]{:T(128)}, bf16[16,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], bf16[16,128])) -> (s32[], bf16[16,128]) {
  %p = (s32[], bf16[16,128]) parameter(0)
  ROOT %inner = (s32[], bf16[16,128]) while(%p), condition=%inner_condition, body=%inner_body
}

%outer_condition (p: (s32[], bf16[16,128])) -> pred[] {
  ROOT %p = (s32[], bf16[16,128]) parameter(0)
}

ENTRY %main (x: (s32[], bf16[16,128]), /*index=1*/y: f32[8,128]) -> f32[64,128] {
  %x = (s32[], bf16[16,128]) parameter(0)
  %y = f32[8,128]{1,0:T(8,128)} parameter(1)
  %outer = (s32[], bf16[16,128]) while(%x), condition=%outer_condition, body=%outer_body, {"known_trip_count":{"n":"3"}}
  %start = (f32[8,128], f32[64,128]) all-gather-start(%y), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %done = f32[64,128] all-gather-done(%start)
}
'''


def test_nested_loops_multiply_and_asynchronous_pairs_count_once():
  module = hlo.parse(LOOP)
  array = 16 * 128 * 2
  assert module.devices == 8
  assert collectives.summary(module) == {
      'all-reduce': {'count': 36, 'bytes': 36 * array * 2 * 3 // 4},
      'all-gather': {'count': 1, 'bytes': 7 * 8 * 128 * 4}}


def test_a_loop_of_unknown_length_is_refused():
  module = hlo.parse(LOOP.replace('constant(12)', 'parameter(1)'))
  with pytest.raises(ValueError, match='trip count of inner'):
    collectives.summary(module)


@pytest.mark.parametrize('shape, size', [
    ('f32[12,768]{1,0:T(8,128)}', 16 * 768 * 4), ('f32[12,48,12,3,64]{4,1,3,2,0:T(8,128)}', 12 * 48 * 12 * 3 * 128 * 4),
    ('bf16[256,196,768]{2,1,0:T(8,128)(2,1)S(1)}', 256 * 200 * 768 * 2), ('f32[12,196]{0,1:T(8,128)}', 128 * 200 * 4),
    ('pred[7]', 7), ('f32[]', 4), ('(f32[2], (s8[3], u32[]))', 8 + 3 + 4), ('f8e4m3fn[4,2]{1,0}', 8)])
def test_bytes_with_the_padding_of_tiles(shape, size):
  assert sum(array.bytes for array in hlo.arrays(shape)) == size


@pytest.mark.parametrize('written, group', [
    ('replica_groups={{0,2},{1,3}}, x=1', (0, 2)), ('replica_groups=[4,2]<=[8]', (0, 1)),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', (0, 4)), ('channel_id=1', tuple(range(8))),
    ('replica_groups={}', tuple(range(8))),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", (0, 4)), ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
    ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", (0, 2)), ("replica_groups=mesh['a'=2,'b'=4] {'b':(2)2}", (0, 1)),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={1}", (0, 1, 2, 3)),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([8]) {'b'}", (0, 1)),
    ('source_target_pairs={{0,0},{1,5},{5,1}}, x=1', (1, 5))])
def test_every_notation_of_groups(written, group):
  assert collectives._first_group(written, 8) == group


SLICES = '''HloModule jit_step, num_partitions=4

ENTRY %main (x: bf16[4,8,128]) -> bf16[4,8,128] {
  %x = bf16[4,8,128]{2,1,0} parameter(0)
  %reduced = bf16[8,128]{1,0} reduce-scatter(%x), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
  %after-all = token[] after-all()
  %send = (bf16[8,128]{1,0}, u32[], token[]) send(%reduced, %after-all), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_reduce_operation="SUM",\
_xla_megascale_target="{1,2,3}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (bf16[8,128]{1,0}, u32[], token[]) recv(%after-all), channel_id=3, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %received = (bf16[8,128]{1,0}, token[]) recv-done(%recv), channel_id=3, is_host_transfer=true
  %sum = bf16[8,128]{1,0} get-tuple-element(%received), index=0
  ROOT %out = bf16[4,8,128]{2,1,0} all-gather(%sum), replica_groups={{0,1,2,3}}, dimensions={0}
}
'''


def test_counters_of_unrolled_loops_increase_by_more_than_one():
  two = LOOP.replace('tuple(%i, %reduced)', 'tuple(%j, %reduced)').replace('constant(12)', 'constant(23)').replace(
      '  ROOT %next', '  %two = s32[] constant(2)\n  %j = s32[]{:T(128)} add(%i, %two)\n  ROOT %next')
  assert two.count('%j') == 2
  assert collectives.summary(hlo.parse(two)) == collectives.summary(hlo.parse(LOOP))  # 0, 2, .. 22: 12 times


def test_stages_of_one_collective_count_once_even_if_one_is_in_a_loop():
  stage = """%STAGE (x: f32[8,128]) -> f32[32,128] {
  %x = f32[8,128] parameter(0)
  ROOT %part = f32[32,128] all-gather(%x), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

"""
  staged = 'HloModule jit_step, num_partitions=4\n\n' + ''.join(stage.replace('STAGE', name) for name in 'abc') + """
%body (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128] parameter(0)
  ROOT %middle = f32[8,128] fusion(%p), kind=kCustom, calls=%b
}

%condition (p: f32[8,128]) -> pred[] {
  ROOT %p = f32[8,128] parameter(0)
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128] parameter(0)
  %start = f32[8,128] fusion(%x), kind=kCustom, calls=%a
  %loop = f32[8,128] while(%start), condition=%condition, body=%body, {"known_trip_count":{"n":"9"}}
  ROOT %done = f32[8,128] fusion(%loop), kind=kCustom, calls=%c
}
"""
  assert collectives.summary(hlo.parse(staged)) == {'all-gather': {'count': 1, 'bytes': 3 * 8 * 128 * 4}}


def test_a_fused_all_reduce_that_keeps_only_a_part_is_a_reduce_scatter():
  fused = '''HloModule jit_step, num_partitions=4

%all-reduce-scatter.1 (x: bf16[64,128]) -> bf16[16,128] {
  %x = bf16[64,128] parameter(0)
  %whole = bf16[64,128] all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add
  %i = u32[] partition-id()
  ROOT %part = bf16[16,128] dynamic-slice(%whole, %i), dynamic_slice_sizes={16,128}
}

ENTRY %main (x: bf16[64,128]) -> bf16[16,128] {
  %x = bf16[64,128] parameter(0)
  ROOT %out = bf16[16,128] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
'''
  assert collectives.summary(hlo.parse(fused)) == {'reduce-scatter': {'count': 1, 'bytes': 64 * 128 * 2 * 3 // 4}}


def test_an_unknown_notation_of_groups_is_refused():
  with pytest.raises(ValueError, match='unsupported notation of replica groups: spiral'):
    collectives._first_group('replica_groups=spiral, x=1', 8)


def test_bytes_within_and_between_slices():
  """A gradient on three slices of four: scattered and gathered within each, a quarter of it reduced between them."""
  module = hlo.parse(SLICES)
  whole, part = 4 * 8 * 128 * 2, 8 * 128 * 2
  assert collectives.sent(module) == {'within': whole * 3 / 4 + 3 * part, 'between': part * 2 * 2 / 3}
  assert collectives.summary(module)['all-reduce between slices'] == {'count': 1, 'bytes': round(part * 4 / 3)}
  assert traffic.hbm_bytes(module) == 2 * whole + 4 * part  # each is sent and received once
  pairs = re.sub('_xla_megascale_target="[^"]*"', '_xla_megascale_target={{100000->200002}}', SLICES)
  assert collectives.sent(hlo.parse(pairs.replace('ALL_REDUCE', 'ONE_TO_ONE')))['between'] == part
  with pytest.raises(ValueError, match='unsupported transfer between slices'):
    collectives.summary(hlo.parse(SLICES.replace('ALL_REDUCE', 'SOMETHING_NEW')))


def _compiled(fn, mesh, in_specs, out_specs, *shapes):
  mapped = jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
  return hlo.parse(jax.jit(mapped).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).compile().as_text())


def test_the_collectives_of_real_programs():
  mesh = make_mesh(MeshConfig(2, 4, 1)).mesh

  def fn(x):  # [2, 16] per device
    def body(x, _):
      return jnp.sin(jax.lax.psum(x, 'fsdp')), None
    x, _ = jax.lax.scan(body, x, length=5)
    gathered = jax.lax.all_gather(x, 'fsdp', axis=0, tiled=True)
    scattered = jax.lax.psum_scatter(jnp.cos(gathered), 'fsdp', tiled=True)
    return jax.lax.ppermute(scattered, 'data', [(0, 1), (1, 0)])

  found = collectives.summary(_compiled(fn, mesh, P(('data', 'fsdp')), P(('data', 'fsdp')), (16, 16)))
  x = 2 * 16 * 4
  assert found['all-reduce'] == {'count': 5, 'bytes': 5 * x * 2 * 3 // 4}
  assert found['all-gather'] == {'count': 1, 'bytes': 3 * x}
  assert found['collective-permute'] == {'count': 1, 'bytes': x}
  assert found['reduce-scatter'] == {'count': 1, 'bytes': 4 * x * 3 // 4}


def test_groups_are_along_the_axis():
  mesh = make_mesh(MeshConfig(2, 4, 1)).mesh
  for axis, group in (('fsdp', (0, 1, 2, 3)), ('data', (0, 4))):
    module = _compiled(lambda x, axis=axis: jax.lax.psum(x, axis), mesh, P(('data', 'fsdp')), P(), (16, 16))
    assert [one.group for one in collectives.find(module)] == [group]


def test_attributes_of_a_kernel_over_several_lines_do_not_end_a_computation():
  module = hlo.parse('''HloModule jit_step, num_partitions=1

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0} parameter(0)
  %kernel = f32[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={notes={
"block": 128
}}, metadata={op_name="splash"}
  ROOT %y = f32[8,128]{1,0} copy(%kernel)
}
''')
  assert [instruction.opcode for _, instruction, _ in module.executed()] == ['parameter', 'custom-call', 'copy']
  assert traffic.hbm_bytes(module) == 2 * 2 * 8 * 128 * 4


FUSIONS = '''HloModule jit_step, num_partitions=1

%slicing (stack: f32[4,8,128], i: s32[]) -> f32[1,8,128] {
  %stack = f32[4,8,128] parameter(0)
  %i = s32[] parameter(1)
  ROOT %slice = f32[1,8,128] dynamic-slice(%stack, %i), dynamic_slice_sizes={1,8,128}
}

%updating (stack: f32[4,8,128], row: f32[1,8,128], i: s32[]) -> f32[4,8,128] {
  %stack = f32[4,8,128] parameter(0)
  %row = f32[1,8,128] parameter(1)
  %i = s32[] parameter(2)
  ROOT %update = f32[4,8,128] dynamic-update-slice(%stack, %row, %i)
}

ENTRY %main (stack: f32[4,8,128], i: s32[]) -> f32[4,8,128] {
  %stack = f32[4,8,128] parameter(0)
  %i = s32[] parameter(1)
  %near = f32[4,8,128]{2,1,0:S(1)} copy(%stack)
  %row = f32[1,8,128] fusion(%stack, %i), kind=kLoop, calls=%slicing
  ROOT %out = f32[4,8,128] fusion(%stack, %row, %i), kind=kLoop, calls=%updating
}
'''


def test_slices_and_updates_in_place_move_their_own_size():
  stack, row, index = 4 * 8 * 128 * 4, 8 * 128 * 4, 4
  copied = stack  # read; the result is kept near the core
  assert traffic.hbm_bytes(hlo.parse(FUSIONS)) == copied + (row + index + row) + (row + index + row)


def test_what_a_fusion_inside_a_fusion_slices_moves_its_own_size():
  nested = FUSIONS.replace('ENTRY', """%outer (stack: f32[4,8,128], i: s32[]) -> f32[1,8,128] {
  %stack = f32[4,8,128] parameter(0)
  %i = s32[] parameter(1)
  %view = f32[4,8,128] bitcast(%stack)
  %row = f32[1,8,128] fusion(%view, %i), kind=kLoop, calls=%slicing
  ROOT %twice = f32[1,8,128] add(%row, %row)
}

ENTRY""").replace('kind=kLoop, calls=%slicing\n  ROOT %out', 'kind=kLoop, calls=%outer\n  ROOT %out')
  assert nested.count('%outer') == 2
  assert traffic.hbm_bytes(hlo.parse(nested)) == traffic.hbm_bytes(hlo.parse(FUSIONS))


@pytest.mark.parametrize('remat', [False, True])
def test_arrays_stacked_by_the_forward_pass_are_found(remat):
  layers, batch, width = 5, 4, 16

  def loss(w, x):
    body = lambda x, w: (jnp.tanh(x @ w), None)
    body = jax.checkpoint(body, policy=jax.checkpoint_policies.nothing_saveable) if remat else body
    return jnp.sum(jax.lax.scan(body, x, w)[0])

  shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((layers, width, width), (batch, width))]
  module = hlo.parse(jax.jit(jax.grad(loss)).lower(*shapes).compile().as_text())
  saved, inputs = traffic.saved_for_backward(module), layers * batch * width * 4
  assert saved == inputs if remat else saved > inputs
  assert traffic.hbm_bytes(module) > 2 * saved  # written, and read
