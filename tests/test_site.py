"""The site of docs/: it is built without a warning, every link leads somewhere, and pages are for everyone."""

import functools
import html
import http.server
import os
import re
import subprocess
import sys
import threading

import chromium
import pytest
from command_line import ROOT

pytestmark = pytest.mark.slow
LOOKED_AT = ('index.html', 'training.html', 'reference/functions.html', 'experiments/index.html', 'configs/index.html',
             'vit_jax/models/vit.py.html', 'notebooks/first_law.html')


@pytest.fixture(name='site', scope='module')
def _site(tmp_path_factory):
  """The folder of the built site."""
  pytest.importorskip('mkdocs', reason='no mkdocs: the extra `docs` has it')
  folder = tmp_path_factory.mktemp('site')
  built = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)], cwd=ROOT,
                         capture_output=True, text=True, env=os.environ | {'NO_MKDOCS_2_WARNING': '1'})
  assert built.returncode == 0, built.stderr
  return folder


def test_every_link_and_anchor_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site):
  texts = {path: path.read_text() for path in site.rglob('*.html') if path.name != '404.html'}
  anchors = {path: set(re.findall(r'\bid="?([^"\s>]+)', text)) for path, text in texts.items()}
  assert len(texts) > 60
  dead, elsewhere = [], []
  for path, text in texts.items():
    fetched = re.findall(r'<(?:script|img|iframe)\b[^>]*>|<link\b[^>]*rel="?stylesheet[^>]*>', text)
    elsewhere += [tag for tag in fetched if re.search(r'(?:src|href)="?(?:https?:)?//', tag)]
    for target in re.findall(r'\bhref="?([^"\s>]+)', text):
      file, _, anchor = html.unescape(target).partition('#')
      if '://' in file or file.startswith('mailto:'):
        continue
      there = (path.parent / file).resolve() if file else path
      if not there.is_file() or (anchor and there in anchors and anchor not in anchors[there]):
        dead.append(f'{path.relative_to(site)}: {target}')
  assert not dead and not elsewhere


def test_pages_of_the_repository_are_on_it(site):
  assert 'A law of model size' in (site / 'index.html').read_text()
  functions = (site / 'reference/functions.html').read_text()
  assert 'id="vit_jax.api.train"' in functions and 'resumes a run that was stopped' in functions
  assert 'id="vit_jax.objectives.objective.Objective.loss"' in (site / 'reference/objectives.html').read_text()
  assert '<code>' in (site / 'vit_jax/models/vit.py.html').read_text()
  blocks = re.findall(r'<pre>.*?</pre>', (site / 'training.html').read_text(), re.DOTALL)
  assert len(blocks) > 8 and not any('```' in block for block in blocks)


@pytest.fixture(name='served', scope='module')
def _served(site):
  """Its address."""
  class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Silent, directory=str(site))) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_its_pages_are_for_everyone(served):
  with chromium.started() as browser:
    assert [fault for page in LOOKED_AT for fault in chromium.faults(browser, f'{served}/{page}')] == []
    with chromium.opened(browser, f'{served}/index.html') as (page, said):
      page.get_by_role('textbox', name='Search').fill('calibration error')
      page.locator('.md-search-result__link').first.wait_for(timeout=20_000)
      assert said == []
