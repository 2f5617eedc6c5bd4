"""The table of chips."""

import pytest

from vit_jax.cost import hardware


@pytest.mark.parametrize('kind', hardware.CHIPS)
def test_a_chip_is_plausible(kind):
  """A slip of a power of ten shows: 150 to 700 FLOPs a byte, and memory that is read in 0.01 to 0.1 s."""
  chip = hardware.CHIPS[kind]
  assert 150 < chip.peak_flops / chip.hbm_bandwidth < 700
  assert 0.01 < chip.hbm_bytes / chip.hbm_bandwidth < 0.1
  assert chip.send_bandwidth < chip.hbm_bandwidth / 3


def test_other_spellings_and_unknown_chips():
  assert hardware.peak_flops('TPU v5e') == hardware.peak_flops('TPU v5 lite') == 197e12
  assert hardware.peak_flops('TPU7x') == 2307e12 / 2  # of one of the two devices of a chip
  assert hardware.peak_flops('NVIDIA H300') is None
