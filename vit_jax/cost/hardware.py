"""The speed and memory of accelerator chips."""

import dataclasses
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Chip:
  """The peak performance of a chip."""
  peak_flops: float  # FLOP/s in dense bfloat16 (a multiply-add is 2)
  hbm_bytes: float
  hbm_bandwidth: float  # bytes/s
  send_bandwidth: float  # bytes/s to neighboring chips (ICI, NVLink), over all links, in one direction
  network_bandwidth: float | None = None  # bytes/s to other slices or hosts, over the data center network
  devices: int = 1  # JAX devices per chip
  joined: int = 8  # GPUs that send to each other over NVLink, or of a host over PCIe; TPUs are joined in slices


# By `device_kind` of JAX. TPUs: the page of each generation at cloud.google.com/tpu/docs, which gives the interconnect
# as the sum of both directions (v4: six links of 45 GB/s each way). GPUs: NVIDIA's data sheets; peaks there are with
# sparsity, twice the dense ones. Networks are those of NVIDIA's DGX machines, an adapter for each GPU. PCIe cards send
# over PCIe (4.0: 32 GB/s, 5.0: 64 GB/s each way): a bridge joins two of them only.
CHIPS = {
    'TPU v4': Chip(275e12, 32 * 2**30, 1228e9, 270e9),
    'TPU v5 lite': Chip(197e12, 16 * 2**30, 819e9, 200e9, 3.125e9),
    'TPU v5': Chip(459e12, 95 * 2**30, 2765e9, 600e9, 6.25e9),
    'TPU v6 lite': Chip(918e12, 32 * 2**30, 1638e9, 400e9, 12.5e9),
    'TPU7x': Chip(2307e12, 192 * 2**30, 7380e9, 600e9, 12.5e9, devices=2),
    'NVIDIA A100-SXM4-40GB': Chip(312e12, 40e9, 1555e9, 300e9, 25e9),
    'NVIDIA A100-SXM4-80GB': Chip(312e12, 80e9, 2039e9, 300e9, 25e9),
    'NVIDIA A100 80GB PCIe': Chip(312e12, 80e9, 1935e9, 32e9),
    'NVIDIA A100-PCIE-40GB': Chip(312e12, 40e9, 1555e9, 32e9),
    'NVIDIA H100 80GB HBM3': Chip(989e12, 80e9, 3350e9, 450e9, 50e9),
    'NVIDIA H100 PCIe': Chip(756e12, 80e9, 2000e9, 64e9),
    'NVIDIA H100 NVL': Chip(835e12, 94e9, 3900e9, 64e9),
    'NVIDIA H200': Chip(989e12, 141e9, 4800e9, 450e9, 50e9),
    'NVIDIA B200': Chip(2250e12, 180e9, 7700e9, 900e9, 50e9),
    'NVIDIA GB200': Chip(2500e12, 186e9, 8000e9, 900e9, 50e9, joined=72),
    'NVIDIA L4': Chip(121e12, 24e9, 300e9, 32e9),
    'NVIDIA L40S': Chip(362e12, 48e9, 864e9, 32e9),
}
# Short names of GPUs, as clouds and SkyPilot have them.
GPUS = {
    'a100': 'NVIDIA A100-SXM4-40GB', 'a100-80gb': 'NVIDIA A100-SXM4-80GB', 'a100-80gb-pcie': 'NVIDIA A100 80GB PCIe',
    'a100-pcie': 'NVIDIA A100-PCIE-40GB', 'h100': 'NVIDIA H100 80GB HBM3', 'h100-pcie': 'NVIDIA H100 PCIe',
    'h100-nvl': 'NVIDIA H100 NVL', 'h200': 'NVIDIA H200', 'b200': 'NVIDIA B200', 'gb200': 'NVIDIA GB200',
    'l4': 'NVIDIA L4', 'l40s': 'NVIDIA L40S',
}
# Other names that JAX has for the same chips.
_ALSO = {'TPU v5e': 'TPU v5 lite', 'TPU v5p': 'TPU v5', 'TPU v6e': 'TPU v6 lite'}


def chip_of(device_kind: str) -> Chip | None:
  """The chip of a JAX device of this kind; None if it is not in the table."""
  return CHIPS.get(_ALSO.get(device_kind, device_kind))


def peak_flops(device_kind: str) -> float | None:
  """FLOP/s of one JAX device of this kind in dense bfloat16; None if it is not in the table."""
  chip = chip_of(device_kind)
  return chip.peak_flops / chip.devices if chip else None


def matmul_speed(device: jax.Device) -> float:
  """FLOP/s of one device: its peak from the table, or the measured speed of a large float32 matmul (takes 0.1 s)."""
  if peak := peak_flops(device.device_kind):
    return peak
  n, times = 1024, 4
  a = jax.device_put(jnp.ones((n, n), jnp.float32), device)
  matmul = jax.jit(jnp.matmul)
  matmul(a, a).block_until_ready()
  start = time.perf_counter()
  for _ in range(times):
    a = matmul(a, a)
  a.block_until_ready()
  return times * 2 * n**3 / (time.perf_counter() - start)
