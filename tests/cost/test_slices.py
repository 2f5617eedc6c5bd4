import math

import pytest

from vit_jax.cost import prices, slices
from vit_jax.errors import UserError


@pytest.mark.parametrize('name, topology, chips, hosts, per_host', [
    ('v5e-16', '4x4', 16, 4, 4), ('v5litepod-16', '4x4', 16, 4, 4), ('v5e-1', '1x1', 1, 1, 1),
    ('v5e-4', '2x2', 4, 1, 4), ('v6e-8', '2x4', 8, 1, 8), ('v6e-256', '16x16', 256, 64, 4),
    ('v4-8', '2x2x1', 4, 1, 4), ('v4-32', '2x2x4', 16, 4, 4),
    ('v5p-512', '4x8x8', 256, 64, 4), ('TPU7x-128', '4x4x4', 64, 16, 4)])
def test_names(name, topology, chips, hosts, per_host):
  found = slices.find(name)
  assert (found.topology, found.chips, found.hosts, found.chips_per_host) == (topology, chips, hosts, per_host)


def test_every_slice_is_found_by_name_and_fills_its_hosts():
  for generation, info in slices.GENERATIONS.items():
    chips = [slices.Slice(generation, topology).chips for topology in info.topologies]
    assert chips == sorted(set(chips))
    for topology in info.topologies:
      one = slices.Slice(generation, topology)
      assert slices.find(one.name) == one and one.devices == one.chips * one.chip.devices
      assert [other.chips for other in one.larger] == [n for n in chips if n > one.chips]
      assert one.hosts * one.chips_per_host == one.chips == math.prod(map(int, topology.split('x')))


def test_several_slices():
  two = slices.find('v5p-512', 2)
  assert (two.chips, two.hosts, str(two)) == (512, 64, '2 x v5p-512 (256 chips, 4x8x8)')


@pytest.mark.parametrize('name, message', [
    ('v5e-24', r'no slice has this size; the nearest: v5e-16 \(16 chips, 4x4\) or v5e-32 \(32 chips, 4x8\)'),
    ('v5p-4', r'counts cores, two per chip\); the nearest: v5p-8 \(4 chips'),
    ('v5e-1024', r'the nearest: v5e-256 \(256 chips, 16x16\)$'),
    ('v5f-16', r"did you mean 'v5[ep]'"), ('v5litpod-16', "did you mean 'v5litepod'"),
    ('v5e', 'expected a TPU slice, GENERATION-NUMBER'),
    ('h100-8', 'h100 is a GPU: give it as --gpu'), ('', 'GENERATION-NUMBER')])
def test_unknown_slices_are_refused_with_the_nearest(name, message):
  with pytest.raises(UserError, match=message):
    slices.find(name)


def test_zero_slices_are_refused():
  with pytest.raises(UserError, match='num_slices=0'):
    slices.find('v5e-16', 0)


@pytest.mark.parametrize('spelled, name', [
    ('tpu-v5litepod-16', 'v5e-16'), ('tpu-v5e-16', 'v5e-16'), ('tpu-v4-8', 'v4-8'), ('tpu-v6e-8', 'v6e-8'),
    ('TPU-V5P-512:1', 'v5p-512'), ('tpu_v5p_512', 'v5p-512'), ('tpu7x-128', 'tpu7x-128'), ('trillium-16', 'v6e-16')])
def test_spellings_of_skypilot_and_others(spelled, name):
  assert slices.find(spelled).name == name


def test_every_slice_is_on_a_machine_that_is_sold():
  for name, generation in slices.GENERATIONS.items():
    for topology in generation.topologies:
      one = slices.Slice(name, topology)
      assert one.machine.name.endswith(f'-{one.chips_per_host}t') and one.machine.cpus and one.machine.memory_gb


def test_slices_of_eight_chips_on_machines_of_four():
  found = (slices.find('v5e-8'), slices.find('v5e-8', host_chips=4), slices.find('v6e-8', 1, 8))
  assert [one.hosts for one in found] == [1, 2, 1]
  with pytest.raises(UserError, match='--chips_per_host=8: v5e-16 has hosts of 4 chips; .* only for v5e-8 and v6e-8'):
    slices.find('v5e-16', host_chips=8)


def test_every_generation_has_a_price():
  assert set(prices.ON_DEMAND) == set(slices.GENERATIONS) and prices.of('v5e', 0.5) == (0.5, '--price')
  dollars, source = prices.of('v5e')
  assert dollars == 1.2 and prices.DATE in source and '--price' in source
