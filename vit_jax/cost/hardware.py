"""How fast a device is."""

import time

import jax
import jax.numpy as jnp

# Peak FLOP/s of one chip in dense bfloat16 (multiply-add = 2), by jax's `device_kind`.
# Google Cloud's TPU pages; NVIDIA's data sheets of A100 and H100 (SXM).
PEAK_FLOPS = {
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
    'NVIDIA A100-SXM4-40GB': 312e12,
    'NVIDIA A100-SXM4-80GB': 312e12,
    'NVIDIA H100 80GB HBM3': 989e12,
}


def matmul_speed(device: jax.Device) -> float:
  """FLOP/s of one device: its peak from the table, else the speed of a large float32 matmul, measured now (0.1 s)."""
  if device.device_kind in PEAK_FLOPS:
    return PEAK_FLOPS[device.device_kind]
  n, times = 1024, 4
  a = jax.device_put(jnp.ones((n, n), jnp.float32), device)
  matmul = jax.jit(jnp.matmul)
  matmul(a, a).block_until_ready()
  start = time.perf_counter()
  for _ in range(times):
    a = matmul(a, a)
  a.block_until_ready()
  return times * 2 * n**3 / (time.perf_counter() - start)
