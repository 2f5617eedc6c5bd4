"""The process that compiles for an absent TPU. It reads a JSON request on stdin and prints the answer as its last line.

`compiler` starts it in an environment of its own; its argument is the process id of its parent.
"""

import json
import re
import sys
import time
from importlib import metadata

from vit_jax import host


def main() -> None:
  host.die_with(int(sys.argv[1]))
  request = json.load(sys.stdin)
  print(json.dumps(answer(request)), flush=True)


def answer(request: dict) -> dict:
  """The fields of `compiler.Compiled`; if the program does not fit, {'refused': why, 'needs_bytes': bytes or None}."""
  import jax

  from vit_jax import objectives
  from vit_jax.models import PureModel
  from vit_jax.parallel import mesh as mesh_lib
  from vit_jax.rehearsal import collectives, hlo, traffic
  from vit_jax.training import config as run_config
  from vit_jax.training import step
  from vit_jax.transfer import teacher as teacher_lib

  config = run_config.cast(request['config'])
  mesh = mesh_lib.make_mesh(config.system.mesh, devices(**request['target']))
  model = PureModel(config.family, config.model, tuple(request['image_shape']), request['num_classes'],
                    config.system.execution, objectives.of(config))
  taught = config.distill.teacher
  teacher = taught and teacher_lib.of_any_classes(taught, request['num_classes'])
  start = time.perf_counter()
  lowered = step.trace(model, config, request['steps'], mesh, teacher).lower()
  traced = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {'refused': str(error).partition('\n')[0], 'needs_bytes': _needed(str(error))}
  seconds = time.perf_counter() - traced
  memory, module = compiled.memory_analysis(), hlo.parse(compiled.as_text())
  return {
      'peak_bytes': memory.peak_memory_in_bytes, 'argument_bytes': memory.argument_size_in_bytes,
      'state_bytes': memory.alias_size_in_bytes, 'temporary_bytes': memory.temp_size_in_bytes,
      'activation_bytes': traffic.saved_for_backward(module), 'hbm_bytes': traffic.hbm_bytes(module),
      'collectives': collectives.summary(module),
      'sent_bytes': collectives.sent(module),
      'trace_s': traced - start, 'compile_s': seconds,
      'versions': {name: metadata.version(name) for name in ('jax', 'jaxlib', 'libtpu')}}


def devices(topology: str, chip_config: str | None, slices: int) -> list:
  """The devices of slices that are not here; for the arguments see `compiler.topology`."""
  from jax.experimental import topologies
  options = {}
  if chip_config:
    options['chip_config_name'] = chip_config
  if topology.endswith(':1x1'):
    options['chips_per_host_bounds'] = (1, 1, 1)
  if slices > 1:
    options['num_slices'] = slices
  return topologies.get_topology_desc(platform='tpu', topology_name=topology, **options).devices


def _needed(message: str) -> float | None:
  """The bytes that a refused program needs; None if the compiler's message does not say."""
  units = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
  for pattern in (r'Used ([\d.]+)([KMGT]) of', r'\(([\d.]+)([KMGT])\) exceeds'):
    if match := re.search(pattern, message):
      return float(match[1]) * units[match[2]]
  return None


if __name__ == '__main__':
  main()
