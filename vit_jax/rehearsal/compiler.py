"""Ahead-of-time compilation for TPUs on a machine without one: the real training step, in a separate process."""

import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

from vit_jax import host, schema
from vit_jax.cost.slices import Slice
from vit_jax.errors import UserError
from vit_jax.rehearsal.job import Choice, Job

INSTALL = "uv run --extra plan python -m vit_jax.plan ...   (or: pip install 'jax[tpu]')"
DOCKER = ('docker run --platform=linux/amd64 -v "$PWD":/work -w /work ghcr.io/astral-sh/uv:python3.12-bookworm '
          'uv run --extra plan python -m vit_jax.plan ...')


@dataclasses.dataclass(frozen=True)
class Compiled:
  """The compiler's figures for a step. Bytes are per device (tpu7x has two devices per chip)."""
  peak_bytes: int  # largest number of bytes in use at once, including arguments
  argument_bytes: int  # state and batch
  state_bytes: int  # the part of the arguments that is updated in place and returned
  temporary_bytes: int  # allocated in addition to the arguments: work space, including fragmentation
  activation_bytes: int  # kept by the forward pass for the backward pass
  hbm_bytes: int  # moved per step
  collectives: dict  # {kind: {count, bytes}} per step
  sent_bytes: dict  # per step: {'within': bytes that a device sends inside its slice, 'between': to other slices}
  trace_s: float
  compile_s: float
  versions: dict


@dataclasses.dataclass(frozen=True)
class Refused:
  """The step does not fit, by the compiler's own account."""
  why: str
  needs_bytes: float | None


class OutOfTime(Exception):
  """A compilation was stopped because its time was over."""


def missing(devices: str = 'tpu') -> str | None:
  """Why there is no compiler here for absent devices, 'tpu' or 'gpu', and the command that provides one; else None."""
  if devices == 'gpu':
    return 'XLA compiles for GPUs only where one is'
  if importlib.util.find_spec('libtpu'):
    return None
  if sys.platform == 'linux' and platform.machine() == 'x86_64':
    return f'the TPU compiler (libtpu) is not installed: {INSTALL}'
  return f'the TPU compiler (libtpu) is built for Linux on x86-64 only: {DOCKER}'


def topology(target: Slice) -> dict:
  """The arguments of `worker.devices` for these slices."""
  # Megacore makes the two cores of a v4 chip one device, as those of v5p are by default.
  return {'topology': f'{target.generation}:{target.topology}', 'slices': target.count,
          'chip_config': 'megacore' if target.generation == 'v4' else None}


def compile_step(job: Job, target: Slice, choice: Choice, seconds: float | None = None,
                 waiting: Callable[[float], None] = lambda elapsed: None) -> Compiled | Refused:
  """Compiles the training step of a run for absent slices.

  Args:
    job: the run.
    target: the slices.
    choice: mesh, rematerialisation and micro-batches.
    seconds: the time after which the compiler is stopped; None: it is never stopped.
    waiting: called twice a second with the seconds since the start.

  Raises:
    OutOfTime: compilation took longer than `seconds`.
    UserError: there is no compiler here, or it failed for a reason other than memory.
  """
  if reason := missing():
    raise UserError(reason)
  request = {'config': schema.plain(job.with_choice(choice)), 'image_shape': job.image_shape,
             'num_classes': job.num_classes, 'steps': job.schedule_steps, 'target': topology(target)}
  # Only for the worker, not for this process or others that it starts: see `host.WITHOUT_TPU`.
  environment = os.environ | host.WITHOUT_TPU | {'JAX_PLATFORMS': 'cpu'}
  process = subprocess.Popen([sys.executable, '-m', 'vit_jax.rehearsal.worker', str(os.getpid())],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=environment)
  try:
    out, errors = _communicate(process, json.dumps(request), seconds, waiting)
  finally:
    if process.poll() is None:
      process.kill()
      process.wait()
  if process.returncode:
    last = (errors.strip().splitlines() or ['no error message'])[-1]
    raise UserError(f'the TPU compiler failed (exit code {process.returncode}): {last}')
  answer = json.loads(out.strip().splitlines()[-1])
  return Refused(answer['refused'], answer['needs_bytes']) if 'refused' in answer else Compiled(**answer)


def _communicate(process, request, seconds, waiting):
  start = time.monotonic()
  while True:
    try:
      return process.communicate(request, timeout=0.5)
    except subprocess.TimeoutExpired:
      request = None
      elapsed = time.monotonic() - start
      waiting(elapsed)
      if seconds is not None and elapsed > seconds:
        raise OutOfTime from None
