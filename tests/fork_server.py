"""A process that has imported what the programs need, and forks for each program that it is asked to run.

A new process takes 1.6 CPU seconds to import JAX and what else a run needs; a fork has them. It is a process of its
own, with its own arguments, output, working directory, devices and exit code. The programs themselves are not imported
here, and no device of JAX is opened.

Requests are lines of JSON on stdin: module, arguments, env, cwd, and the files for stdout and stderr. The answer is the
exit code, as subprocess gives it.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import sys
import threading
import traceback

IMPORTED = ('matplotlib.figure', 'scipy.optimize', 'jax', 'flax.nnx', 'optax', 'orbax.checkpoint', 'grain.python',
            'sklearn.datasets', 'rich.console', 'vit_jax.training.loop', 'vit_jax.training.run',
            'vit_jax.training.display')


def _answer(lines) -> dict:
  """Forks for each request; returns in a fork, with what it is to run."""
  for line in lines:
    request = json.loads(line)
    pid = os.fork()
    if not pid:
      return request
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
  return {}


def _become(request: dict) -> None:
  """Makes this fork what `python -m MODULE ARGUMENTS` would be."""
  for descriptor, path in (0, os.devnull), (1, request['out']), (2, request['err']):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.dup2(file, descriptor)
    os.close(file)
  os.environ.clear()
  os.environ.update(request['env'])
  os.chdir(request['cwd'])
  sys.path[0] = request['cwd']
  sys.argv = [request['module'], *request['arguments']]


def _run(module: str) -> int:
  """The exit code of a module run as a program."""
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as end:
    if end.code is None or isinstance(end.code, int):
      return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


def _end(code: int) -> None:
  """Ends as an interpreter does, but for freeing each imported object: that would take as long as importing them."""
  threading._shutdown()
  atexit._run_exitfuncs()
  for stream in sys.stdout, sys.stderr:
    stream.flush()
  os._exit(code)


if __name__ == '__main__':
  for name in IMPORTED:
    importlib.import_module(name)
  gc.collect()
  gc.freeze()  # no collection in a fork touches, and so copies, what all share
  if request := _answer(sys.stdin):
    _become(request)
    _end(_run(request['module']))
