import pytest

from vit_jax.cost import gpus, hardware, slices
from vit_jax.errors import UserError


@pytest.mark.parametrize('name, kind, chips, hosts', [
    ('h100-8', 'NVIDIA H100 80GB HBM3', 8, 1), ('H100:16', 'NVIDIA H100 80GB HBM3', 16, 2),
    ('a100-80gb-4', 'NVIDIA A100-SXM4-80GB', 4, 1), ('a100-80', 'NVIDIA A100-SXM4-40GB', 80, 10),
    ('NVIDIA A100 80GB PCIe-2', 'NVIDIA A100 80GB PCIe', 2, 1), ('gb200-144', 'NVIDIA GB200', 144, 2),
    ('h100_nvl-1', 'NVIDIA H100 NVL', 1, 1)])
def test_names(name, kind, chips, hosts):
  found = gpus.find(name)
  assert found.chip == hardware.CHIPS[kind] and kind in str(found)
  assert (found.chips, found.devices, found.count) == (chips, chips, hosts)
  assert gpus.find(found.name) == found and found.flag == f'--gpu={found.name}'


def test_every_gpu_of_the_table_has_a_short_name():
  assert sorted(hardware.GPUS.values()) == sorted(kind for kind in hardware.CHIPS if kind.startswith('NVIDIA'))
  for short, kind in hardware.GPUS.items():
    assert gpus.find(f'{short}-1') == gpus.find(f'{kind}-1')


def test_larger_numbers_fill_whole_hosts():
  assert [more.chips for more in gpus.find('h100-4').larger][:3] == [8, 16, 32]
  assert [more.chips for more in gpus.find('l4-3').larger][:3] == [6, 24, 48]


@pytest.mark.parametrize('name, message', [
    ('h300-8', "h300 is not in the table of GPUs; did you mean 'h200'"), ('mi300x-8', 'mi300x is not in the table'),
    ('v5e-16', 'v5e is a TPU: give it as --tpu'), ('h100', 'NAME-NUMBER'), ('8xh100', 'NAME-NUMBER'),
    ('h100-0', 'NAME-NUMBER'), ('-8', 'NAME-NUMBER'), ('', 'NAME-NUMBER'),
    ('h100-12', 'the nearest: h100-8 or h100-16'), ('gb200-100', 'the nearest: gb200-72 or gb200-144')])
def test_unknown_and_malformed_names(name, message):
  with pytest.raises(UserError, match=message):
    gpus.find(name)


@pytest.mark.parametrize('given, message', [
    ((None, None), 'expected one of --tpu and --gpu'), (('v5e-8', 'h100-8'), 'expected one of --tpu and --gpu'),
    ((None, 'h100-8', 2), '--num_slices=2: is for TPUs'), (('h100-8', None), 'h100 is a GPU: give it as --gpu')])
def test_one_target(given, message):
  with pytest.raises(UserError, match=message):
    gpus.target(*given)
  assert gpus.target('v5e-8', None, 2) == slices.find('v5e-8', 2)
