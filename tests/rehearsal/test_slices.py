import math

import pytest

from vit_jax.errors import UserError
from vit_jax.rehearsal import slices


@pytest.mark.parametrize('name, chips, devices, topology', [
    ('v5e-16', 16, 16, '4x4'), ('v5litepod-16', 16, 16, '4x4'), ('v5e-1', 1, 1, '1x1'), ('v6e-256', 256, 256, '16x16'),
    ('v4-32', 16, 16, '2x2x4'), ('v5p-512', 256, 256, '4x8x8'), ('v5p-8', 4, 4, '2x2x1'), ('tpu7x-8', 4, 8, '2x2x1'),
    ('TPU7X-128', 64, 128, '4x4x4')])
def test_names(name, chips, devices, topology):
  found = slices.find(name)
  assert (found.chips, found.devices, found.topology) == (chips, devices, topology)


def test_several_slices():
  two = slices.find('v5p-512', 2)
  assert two.chips == 512 and str(two) == '2 x v5p-512 (256 chips, 4x8x8)'


@pytest.mark.parametrize('name, said', [
    ('v5e-24', r'no such slice is sold; the nearest: v5e-16 \(16 chips, 4x4\) or v5e-32 \(32 chips, 4x8\)'),
    ('v5p-4', r'counts cores, two a chip\); the nearest: v5p-8 \(4 chips'),
    ('v5e-1024', r'the nearest: v5e-256 \(256 chips, 16x16\)$'),
    ('v5f-16', r"did you mean 'v5[ep]'"), ('v5e', r'a TPU slice is needed, GENERATION-NUMBER'),
    ('h100-8', r'GENERATION-NUMBER'), ('', r'GENERATION-NUMBER')])
def test_others_are_refused_with_the_nearest(name, said):
  with pytest.raises(UserError, match=said):
    slices.find(name)


def test_no_slices_are_refused():
  with pytest.raises(UserError, match='num_slices=0'):
    slices.find('v5e-16', 0)


def test_every_slice_is_found_by_its_name_and_larger_ones_are_larger():
  for generation, info in slices.GENERATIONS.items():
    chips = [slices.Slice(generation, topology).chips for topology in info.topologies]
    assert chips == sorted(set(chips))
    for topology in info.topologies:
      one = slices.Slice(generation, topology)
      assert slices.find(one.name) == one
      assert one.chips == math.prod(int(n) for n in topology.split('x'))
      assert [other.chips for other in slices.larger(one)] == [n for n in chips if n > one.chips]
