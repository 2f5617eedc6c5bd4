"""A page shows its data, and no data is ever interpreted as markup."""

import base64
import hashlib
import html
import json
import pathlib
import re

import pytest
from hypothesis import example, given, settings, strategies

import vit_jax
from vit_jax.drawing import page

PACKAGE = pathlib.Path(vit_jax.__path__[0])
EVIL = '</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>&amp;\u2028\u2029@DATA@@SCRIPT@"\''
TEXT = strategies.text() | strategies.just(EVIL)


@pytest.fixture(name='script', scope='module')
def _script(tmp_path_factory):
  path = tmp_path_factory.mktemp('page') / 'own.js'
  path.write_text('document.title = DATA.x;\n')
  path.with_suffix('.css').write_text('b { color: red; }\n')
  return path


def _data(text):
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


@settings(max_examples=100, deadline=None)
@given(title=TEXT, plain=TEXT, value=strategies.recursive(
    TEXT | strategies.integers() | strategies.floats(allow_nan=False, allow_infinity=False),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(TEXT, inner)))
@example(EVIL, EVIL, {EVIL: [EVIL]})
def test_nothing_in_the_data_is_markup(script, title, plain, value):
  text = page.render(title, [plain], {'x': value}, script)
  assert _data(text) == {'x': value}
  harmless = page.render('', [''], {'x': 0}, script)
  assert len(re.findall('</?script', text)) == len(re.findall('</?script', harmless)) == 4
  assert len(re.findall(r'<(?!\s)', text)) == len(re.findall(r'<(?!\s)', harmless))  # tags, or the script's own <
  assert f'<title>{html.escape(title)}</title>' in text


def test_only_the_script_of_the_page_may_run_and_no_request_is_allowed(script):
  text = page.render('t', [], {}, script)
  policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
  code = re.findall(r'<script>(.*?)</script>', text, re.S)
  assert len(code) == 1 and code[0].endswith(script.read_text())
  digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
  assert [part for part in policy.split('; ') if 'http' in part or '*' in part] == []
  assert 'b { color: red; }' in text


def test_nan_and_infinities_are_null(script):
  text = page.render('t', [], {'x': [float('nan'), float('inf'), 1.5], 'y': (float('-inf'),)}, script)
  assert _data(text) == {'x': [None, None, 1.5], 'y': [None]}


@pytest.mark.parametrize('script', sorted(PACKAGE.rglob('*.js')), ids=lambda path: path.name)
def test_scripts_display_data_only_as_text(script):
  code = script.read_text()
  assert not re.search(r'innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|setTimeout\(', code)
  assert set(re.findall(r'https?://[^\s"\']+', code)) <= {'http://www.w3.org/2000/svg'}
