"""Pages in the Chromium that is installed, on a phone and a desktop, light and dark: what a reader would meet."""

import contextlib
import itertools
import shutil

import pytest

VIEWS = list(itertools.product(((390, 844), (1280, 900)), ('light', 'dark')))
_FLAGS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
          '--disable-component-update', '--disable-sync')
# What the keyboard has to reach: buttons and links that are seen, and the first mark of each figure.
_REACHED = 'button:not([disabled]), a[href], summary, [tabindex="0"]'


@contextlib.contextmanager
def started():
  """The browser; skips where it or what drives it is not installed. Nothing is downloaded."""
  playwright = pytest.importorskip('playwright.sync_api', reason='no playwright: the extra `browser` has it')
  pytest.importorskip('axe_playwright_python', reason='no axe-playwright-python: the extra `browser` has it')
  program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
  if program is None:
    pytest.skip('no Chromium: Debian\'s package `chromium` has it')
  with playwright.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=program, args=list(_FLAGS))
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser, address, size=(1280, 900), scheme='light'):
  """(the page, what its console and its network said so far)."""
  context = browser.new_context(viewport=dict(zip(('width', 'height'), size)), color_scheme=scheme,
                                has_touch=size[0] < 600)
  page, said = context.new_page(), []
  page.on('console', lambda message: said.append(message.text) if message.type in ('error', 'warning') else None)
  page.on('pageerror', lambda error: said.append(str(error)))
  here = address[:address.index('/', address.index('://') + 3)]
  page.on('request', lambda request: None if request.url.startswith((here, 'data:')) else said.append(request.url))
  page.goto(address)
  page.wait_for_timeout(200)
  yield page, said
  context.close()


def faults(browser, address):
  """What is wrong with a page in any of the views: axe-core's rules, errors, requests to elsewhere, a page too wide."""
  from axe_playwright_python.sync_playwright import Axe
  found = []
  for size, scheme in VIEWS:
    with opened(browser, address, size, scheme) as (page, said):
      view = f'{address} {size[0]} px, {scheme}:'
      found += [f'{view} {text}' for text in said]
      if (wide := page.evaluate('document.documentElement.scrollWidth')) > size[0]:
        found.append(f'{view} {wide} px wide')
      answer = Axe().run(page, options={'resultTypes': ['violations'], 'preload': False}).response
      found += [f'{view} {rule["id"]}: {node["html"][:120]}: {node["failureSummary"]}'
                for rule in answer['violations'] for node in rule['nodes'][:2]]
  return found


def unreached(page, most=300):
  """What of a page Tab does not reach, or reaches without showing it."""
  page.evaluate('''selector => document.querySelectorAll(selector).forEach(node => {
    if (node.checkVisibility()) node.dataset.unreached = 1; })''', _REACHED)
  hidden = []
  for _ in range(most):
    page.keyboard.press('Tab')
    there = page.evaluate('''() => {
      const node = document.activeElement, style = getComputedStyle(node);
      if (node === document.body || !('unreached' in node.dataset)) return node === document.body ? null : '';
      delete node.dataset.unreached;
      const shown = style.outlineStyle !== 'none' || node.classList.contains('on');
      return shown ? '' : node.outerHTML.slice(0, 120); }''')
    if there is None:
      break
    if there:
      hidden.append(f'focused, but not to be seen: {there}')
  left = page.evaluate('[...document.querySelectorAll("[data-unreached]")].map(node => node.outerHTML.slice(0, 120))')
  return hidden + [f'not reached: {node}' for node in left]
