"""What one chip can do: vendors' figures for dense bfloat16."""

import dataclasses
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Chip:
  """Peak FLOP/s in bfloat16 (multiply-add = 2), memory in bytes, memory bandwidth in bytes/s."""
  name: str
  peak_flops: float
  hbm_bytes: float
  hbm_bandwidth: float


# By jax's `device_kind`. Google Cloud's TPU pages; NVIDIA's A100 and H100 (SXM) data sheets.
CHIPS = {
    'TPU v4': Chip('v4', 275e12, 32e9, 1228e9),
    'TPU v5 lite': Chip('v5e', 197e12, 16e9, 819e9),
    'TPU v5': Chip('v5p', 459e12, 95e9, 2765e9),
    'TPU v5p': Chip('v5p', 459e12, 95e9, 2765e9),
    'TPU v6 lite': Chip('v6e', 918e12, 32e9, 1640e9),
    'NVIDIA A100-SXM4-40GB': Chip('A100', 312e12, 40e9, 1555e9),
    'NVIDIA A100-SXM4-80GB': Chip('A100', 312e12, 80e9, 2039e9),
    'NVIDIA H100 80GB HBM3': Chip('H100', 989e12, 80e9, 3350e9),
}


def chip(device_kind: str) -> Chip | None:
  """The chip of that device kind; None where it is not in the table (a CPU)."""
  return CHIPS.get(device_kind)


def matmul_speed(device: jax.Device) -> float:
  """FLOP/s of one device: its peak from the table, else the speed of a large float32 matmul, measured now (0.1 s)."""
  if known := chip(device.device_kind):
    return known.peak_flops
  n = 1024
  a = jax.device_put(jnp.ones((n, n), jnp.float32), device)
  matmul = jax.jit(jnp.matmul)
  matmul(a, a).block_until_ready()
  start, times = time.perf_counter(), 4
  for _ in range(times):
    a = matmul(a, a)
  a.block_until_ready()
  return times * 2 * n**3 / (time.perf_counter() - start)
