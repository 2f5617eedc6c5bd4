"""Pages and docstrings as a reader uses them: fenced blocks, the commands in them, links."""

import ast
import dataclasses
import json
import pathlib
import re
import shlex
from typing import Any

from vit_jax import completion
from vit_jax.commands import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', *ROOT.glob('docs/*.md'), *ROOT.glob('experiments/**/*.md'),
                *ROOT.glob('tests/**/README.md')])
SOURCES = sorted([*ROOT.glob('configs/*.py'), *ROOT.glob('experiments/*/*.py')])


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block. Of its first line: the language, and a mark behind it that only these tests read.

  Marks of commands: 'run' and 'slow' are executed, 'plan' is a sweep that is only planned.
  """
  where: str  # PAGE:LINE
  language: str
  mark: str
  text: str


@dataclasses.dataclass(frozen=True)
class Command:
  """What starts one program: a module of this repository, one of its files, or another program's name."""
  where: str
  program: str
  arguments: tuple[str, ...]

  @property
  def words(self) -> str:
    return shlex.join([self.program, *self.arguments])


def page_data(html: str) -> Any:
  """What a page of HTML shows (`drawing.page`)."""
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def name(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def blocks(path: pathlib.Path) -> list[Block]:
  """The fenced blocks of a page."""
  out, opened = [], None
  for number, line in enumerate(path.read_text().splitlines(), 1):
    if not line.startswith('```'):
      if opened:
        opened[-1].append(line)
    elif opened:
      out.append(Block(*opened[:3], '\n'.join(opened[3]) + '\n'))
      opened = None
    else:
      language, _, mark = line[3:].partition(' ')
      opened = (f'{name(path)}:{number}', language, mark, [])
  assert opened is None, f'{opened[0]}: the block has no end'
  return out


def commands(text: str, where: str) -> list[Command]:
  """The programs that a shell would start, in order. Loops over words are unrolled; all else stays as it is written."""
  text = text.replace('\\\n', ' ')
  loop = lambda match: '\n'.join(
      re.sub(rf'\$\{{?{match[1]}\b\}}?', word, match[3]) for word in match[2].split())
  text = re.sub(r'for (\w+) in ([^;\n]+); *do\b(.*?)\bdone', loop, text, flags=re.DOTALL)
  out = []
  for line in text.splitlines():
    words = shlex.shlex(line, posix=True, punctuation_chars='();<>|&')
    words.whitespace_split = True
    own = []
    for word in [*words, ';']:
      if not set(word) <= set(';|&'):
        own.append(word)
      elif own:
        out.append(_command(own, where))
        own = []
  return out


def _command(words, where):
  if words[0] == 'taskset':
    words = words[3:]
  if words[:2] == ['uv', 'run']:
    words = words[2:]
    while words[0] == '--extra':
      words = words[2:]
  if words[0] == 'vit-jax' and words[1:2] and words[1] in COMMANDS:
    words = [f'vit_jax.{COMMANDS[words[1]][0]}', *words[2:]]
  if words[0] in ('python', 'python3'):
    words = words[2:] if words[1] == '-m' else words[1:]
  return Command(where, words[0], tuple(words[1:]))


def page_commands(path: pathlib.Path) -> list[Command]:
  """Those of a page's bash blocks."""
  return [command for block in blocks(path) if block.language == 'bash'
          for command in commands(block.text, block.where)]


def docstring_commands(path: pathlib.Path) -> list[Command]:
  """Indented lines of a module's docstring that start a program; what stands far to the right of one is a comment."""
  text = (ast.get_docstring(ast.parse(path.read_text())) or '').replace('\\\n', ' ')
  lines = re.findall(r'^ +((?:uv run|python|taskset) .*)$', text, re.MULTILINE)
  return [command for line in lines for command in commands(re.split(r' {4,}', line)[0], name(path))]


def declared_flags(path: pathlib.Path) -> set[str]:
  """The names of the flags that a file declares, with absl, argparse or a shell's `case`."""
  if path.suffix == '.sh':
    return set(re.findall(r'^ *--(\w+)(?:=\*)?\)', path.read_text(), re.MULTILINE))
  out = set(completion.table_of_options(path))
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
      declares = node.func.attr.startswith('DEFINE_') or node.func.attr in (
          'add_argument', 'addoption', 'define_optional')
      if declares and isinstance(node.args[0], ast.Constant):
        out.add(node.args[0].value.lstrip('-'))
  return out


def links(path: pathlib.Path) -> list[str]:
  """Targets of a page's links and images, without those of its blocks."""
  return re.findall(r'\]\(([^)\s]+)\)', _prose(path))


def anchors(path: pathlib.Path) -> set[str]:
  """What can be linked to in a page: its headings, as GitHub names them."""
  headings = re.findall(r'^#+ (.*)$', _prose(path), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def mentioned_files(path: pathlib.Path) -> list[str]:
  """Paths of the repository in a page's prose, such as `tests/test_main.py`."""
  return re.findall(r'`((?:configs|docs|experiments|tests|vit_jax|\.ci)/[\w/.\-]+)', _prose(path))


def mentioned_flags(path: pathlib.Path) -> set[str]:
  """Flags in a page's prose, such as `--status`; of `--config.KEY=VALUE` the whole key."""
  return set(re.findall(r'`(?!uvx)[^`\n]*?--([a-z_][\w.]*)', _prose(path)))


def _prose(path):
  return re.sub(r'^```.*?^```$', '', path.read_text(), flags=re.DOTALL | re.MULTILINE)
