"""The hook of the site (mkdocs.yml): the pages of the repository as they are, with links that lead somewhere.

On a code host a page links to files and folders of the repository. On the site, README.md, the READMEs of experiments
and the notebooks are pages like those of docs/. Every other file that is linked becomes a page with its text, a picture
is copied, and a folder becomes a list. A page of docs/ is at its place in docs/, all else at its place in the
repository.
"""

import ast
import json
import posixpath
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
PICTURES = ('.png', '.svg', '.jpg')
LANGUAGES = {'.py': 'python', '.json': 'json', '.jsonl': 'json', '.sh': 'bash', '.csv': 'text', '.yml': 'yaml'}
MOST_SHOWN = 60_000  # characters of a file on its page
MOST_LINKED = 40  # files of a folder; with more, such as runs, their names are listed
# Pages that are made of docstrings: {name: (title, what stands above, the objects)}.
REFERENCE = {
    'functions': ('Functions of vit_jax', 'What the commands do, from Python. Each is an attribute of `vit_jax`.',
                  [f'vit_jax.api.{name}' for name in (
                      'train', 'evaluate', 'predict', 'attention', 'sweep', 'fit', 'plan', 'compare', 'arrays')]),
    'outcomes': ('What the functions return', 'A notebook shows each of these as the command prints it.',
                 ['vit_jax.outcomes', 'vit_jax.shown']),
    'sweeps': ('Sweeps', 'What `get_sweep()` returns.', ['vit_jax.sweeps.spec']),
    'families': ('The contract of a family', 'See [a new family](../new_family.md).',
                 ['vit_jax.models.family', 'vit_jax.layers.stack']),
    'objectives': ('The contract of an objective', 'See [objectives](../objectives.md).',
                   ['vit_jax.objectives.objective']),
    'testing': ('Checks for your own tests', '', ['vit_jax.testing']),
}
_FENCE = re.compile(r'^```(\w*).*?^```$', re.DOTALL | re.MULTILINE)
_LINK = re.compile(r'(\]\()([^)\s]+)(\))')
_SOURCES: dict[str, str] = {}  # {place on the site: in the repository, of which the links are}


def on_files(files, config):
  """Adds the pages that are not in docs/."""
  _SOURCES.clear()
  _SOURCES.update((file.src_uri, f'docs/{file.src_uri}') for file in files)
  waiting = ['README.md', 'experiments', *(f'docs/notebooks/{path.name}' for path in ROOT.glob('docs/notebooks/*'))]
  waiting += [path for file in files.documentation_pages()
              for path in _linked(file.content_string, f'docs/{file.src_uri}')]
  while waiting:
    path = waiting.pop()
    if _on_site(path) in _SOURCES:
      continue
    source = _SOURCES[_on_site(path)] = f'{path}/README.md' if (ROOT / path).is_dir() else path
    if path.endswith(PICTURES):
      files.append(File.generated(config, _on_site(path), abs_src_path=str(ROOT / path)))
    else:
      text = _page(path)
      files.append(File.generated(config, _on_site(path), content=text))
      waiting += _linked(text, source)
  for name, (title, words, objects) in REFERENCE.items():
    text = '\n\n'.join([f'# {title}', words, *(f'::: {name}' for name in objects)])
    files.append(File.generated(config, f'reference/{name}.md', content=text))
  return files


def on_nav(nav, config, files):
  """Raises PluginError for a page of docs/ that no reader would find."""
  listed = {page.file.src_uri for page in nav.pages}
  if missing := sorted({path.name for path in ROOT.glob('docs/*.md')} - listed):
    raise PluginError(f'mkdocs.yml: {", ".join(missing)} not in nav')


def on_page_markdown(markdown, page, config, files):
  """Links to places of the site; and blocks without the marks behind their language, which only the tests read."""
  here = posixpath.dirname(page.file.src_uri)
  source = _SOURCES.get(page.file.src_uri, page.file.src_uri)

  def led(match):
    path, anchor = _target(match[2], source)
    if path is None:
      return match[0]
    return f'{match[1]}{posixpath.relpath(_on_site(path), here or ".")}{anchor}{match[3]}'

  parts, end = [], 0
  for fence in _FENCE.finditer(markdown):
    parts.append(_LINK.sub(led, markdown[end:fence.start()]))
    parts.append(re.sub(r'\A```(\w*).*', r'```\1', fence[0]))
    end = fence.end()
  return ''.join([*parts, _LINK.sub(led, markdown[end:])])


def _on_site(path):
  """The path of a page, picture or file of the repository on the site."""
  if (ROOT / path).is_dir():
    return f'{path}/index.md'
  if path.endswith(('.md', *PICTURES)):
    return path.removeprefix('docs/')
  return f'{path.removeprefix("docs/").removesuffix(".ipynb").lstrip(".")}.md'  # hidden files are left out of a site


def _target(link, source):
  """(path in the repository, '#anchor' or '') of a link of a page; (None, '') of other links."""
  link, hash_, anchor = link.partition('#')
  if '://' in link or not link:
    return None, ''
  path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
  if (ROOT / path / 'README.md').is_file():
    path = f'{path}/README.md'
  return (path, hash_ + anchor) if (ROOT / path).exists() else (None, '')


def _linked(text, source):
  """Files and folders that a page links to."""
  found = [_target(match[2], source)[0] for match in _LINK.finditer(_FENCE.sub('', text))]
  return [path for path in found if path is not None]


def _page(path):
  """The text of a page of a file or folder."""
  place = ROOT / path
  if place.is_dir():
    inside = [child for child in sorted(place.iterdir()) if not child.name.startswith(('_', '.'))]
    rows = [f'- [{child.name}]({child.name}){_first_line(child)}' if len(inside) <= MOST_LINKED else f'- {child.name}'
            for child in inside]
    return f'# {"Experiments" if path == "experiments" else path}\n\n' + '\n'.join(rows)
  text = place.read_text()
  if place.suffix == '.md':
    return text
  if place.suffix == '.ipynb':
    cells = json.loads(text)['cells']
    parts = [''.join(cell['source']) for cell in cells]
    return '\n\n'.join(part if cell['cell_type'] == 'markdown' else f'```python\n{part}\n```'
                       for cell, part in zip(cells, parts, strict=True))
  fence = '`' * max(4, 1 + max(map(len, re.findall('`+', text)), default=0))
  cut = f'\n\nThe first {MOST_SHOWN:,} of {len(text):,} characters.' if len(text) > MOST_SHOWN else ''
  return (f'---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{fence}{LANGUAGES.get(place.suffix, "text")}\n'
          f'{text[:MOST_SHOWN].rstrip()}\n{fence}{cut}\n')


def _first_line(place):
  """What a folder's README or a file's docstring begins with."""
  if (place / 'README.md').is_file():
    return ': ' + (place / 'README.md').read_text().partition('\n')[0].lstrip('# ')
  if place.suffix == '.py':
    return ': ' + (ast.get_docstring(ast.parse(place.read_text())) or '').partition('\n')[0]
  return ''
