"""Several real processes on this machine, which train together (gloo)."""

import re
import socket
import subprocess
import sys

import command_line

DEVICES = 4  # of all processes together


def _port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def start(count, command):
  """`count` processes with DEVICES devices in all; `command` gives the words after python for (address, index)."""
  address = f'127.0.0.1:{_port()}'
  environment = command_line.ON_CPU | {'JAX_NUM_CPU_DEVICES': str(DEVICES // count)}
  return [subprocess.Popen([sys.executable, *command(address, index)], cwd=command_line.ROOT, env=environment,
                           text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for index in range(count)]


def finish(started):
  outputs = [process.communicate(timeout=600) for process in started]
  return [process.returncode for process in started], outputs


def spoken(out):
  """What a process printed, without gloo's words, which its threads write piece by piece between each other's."""
  for words in ('[Gloo] Rank ', ' is connected to ', ' peer ranks. ', 'Expected number of connected peer ranks is : '):
    out = out.replace(words, '')
  return '\n'.join(line for line in out.splitlines() if not re.fullmatch(r'[\d ]*', line))


def train(recipe, workdir, count, *flags):
  def command(address, index):
    joined = [f'--distributed={address}', f'--num_processes={count}', f'--process_id={index}'] if count > 1 else []
    return ['-m', 'vit_jax.main', f'--config={recipe}', f'--workdir={workdir}', *joined, *flags]
  return start(count, command)
