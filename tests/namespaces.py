"""Network namespaces as hosts: each has its own loopback, ports and address, and a cable leads to the other.

Programs in them reach servers of this process at 127.0.0.1, as they would without namespaces: a relay listens there.
"""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_MADE = pathlib.Path('/run/netns')  # by `ip netns add`
_FILES = pathlib.Path('/etc/netns')  # which `ip netns exec` shows in the place of those of /etc


@dataclasses.dataclass(frozen=True)
class Host:
  """A host: the address at which others reach it, and the words before a command that runs it there."""
  address: str
  prefix: tuple[str, ...] = ()


LOOPBACK = (Host('127.0.0.1'), Host('127.0.0.1'))


@contextlib.contextmanager
def two(port: int) -> Iterator[tuple[Host, Host]]:
  """Two hosts that reach each other, and this process's server at 127.0.0.1:port; LOOPBACK where none can be made."""
  names = [f'vit{os.getpid() % 100_000}{side}' for side in 'ab']
  with contextlib.ExitStack() as stack:
    try:
      hosts = _connect(names, stack)
      for name in names:
        stack.callback(_relay(name, port))
    except (OSError, subprocess.CalledProcessError):  # no root, no `ip`, or a sandbox that allows none
      hosts = LOOPBACK
    yield hosts


def _connect(names, stack):
  """Two namespaces with a cable between them."""
  for name in names:
    _ip('netns', 'add', name)
    stack.callback(_ip, 'netns', 'del', name)
  _ip('link', 'add', names[0], 'netns', names[0], 'type', 'veth', 'peer', 'name', names[1], 'netns', names[1])
  addresses = ['10.77.0.1', '10.77.0.2']
  for name, address in zip(names, addresses):
    _ip('-n', name, 'addr', 'add', f'{address}/24', 'dev', name)
    for device in ('lo', name):
      _ip('-n', name, 'link', 'set', device, 'up')
    _FILES.joinpath(name).mkdir(parents=True)
    stack.callback(shutil.rmtree, _FILES / name)
    # JAX's collectives on CPUs listen at the address of the host's name.
    (_FILES / name / 'hosts').write_text(f'127.0.0.1 localhost\n{address} {socket.gethostname()}\n')
  return tuple(Host(address, ('ip', 'netns', 'exec', name)) for name, address in zip(names, addresses))


def _ip(*words):
  subprocess.run(['ip', *words], check=True, capture_output=True)


def _relay(name, port):
  """Starts a relay from a namespace's 127.0.0.1:port to this one's; returns what ends it."""

  class Handler(socketserver.BaseRequestHandler):

    def handle(self):
      with socket.create_connection(('127.0.0.1', port)) as server:
        back = threading.Thread(target=_pump, args=(server, self.request), daemon=True)
        back.start()
        _pump(self.request, server)
        back.join()

  class Relay(socketserver.ThreadingTCPServer):
    daemon_threads = True

  relay = Relay(('127.0.0.1', port), Handler, bind_and_activate=False)
  relay.socket.close()
  relay.socket = _listening(name, port)
  threading.Thread(target=relay.serve_forever, daemon=True).start()
  return lambda: (relay.shutdown(), relay.server_close())


def _pump(source, target):
  with contextlib.suppress(OSError):  # a program was killed
    while content := source.recv(1 << 16):
      target.sendall(content)
    target.shutdown(socket.SHUT_WR)


def _listening(name, port):
  """A socket that listens in a namespace: it belongs to the one in which its thread was when it was made."""
  made = []

  def make():
    try:
      with open(_MADE / name) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), _NEW_NETWORK):
          raise OSError(ctypes.get_errno(), 'setns')
      made.append(socket.create_server(('127.0.0.1', port)))
    except OSError as error:
      made.append(error)

  thread = threading.Thread(target=make)
  thread.start()
  thread.join()
  if isinstance(made[0], OSError):
    raise made[0]
  return made[0]
