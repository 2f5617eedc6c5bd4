"""Completion of vit-jax for bash and zsh: eval "$(vit-jax completion bash)", or zsh.

Completes commands, flags, recipes after --config= and --sweep=, and files elsewhere. Flags are read from the sources of
the commands, so that a Tab does not wait for JAX.
"""

import ast
import pathlib
import sys

from vit_jax import recipe as recipe_lib
from vit_jax.commands import COMMANDS

_BASH = '''_vit_jax() {
  local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
  COMPREPLY=($(python3 -m vit_jax.completion -- "$line" 2>/dev/null))
  [ ${#COMPREPLY[@]} -eq 1 ] && [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
complete -o default -F _vit_jax vit-jax
'''.replace('python3', sys.executable)
_SHELLS = {'bash': _BASH, 'zsh': 'autoload -Uz compinit bashcompinit && compinit && bashcompinit\n' + _BASH}


def declared_flags(path: pathlib.Path) -> list[str]:
  """The flags that the source of a command declares: `--name=`, or `--name` where it can stand alone."""
  out = []
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      kind = node.func.attr
      if kind == 'define_config':
        out.append('--config=')
      elif (kind.startswith('DEFINE_') or kind == 'define_optional') and isinstance(node.args[0], ast.Constant):
        alone = kind in ('DEFINE_bool', 'DEFINE_boolean', 'define_optional')
        out.append(f'--{node.args[0].value}{"" if alone else "="}')
      elif kind == 'define' and isinstance(node.func.value, ast.Name):  # of a table, such as law_options
        out += [f'--{name}=' for name in table_of_options(path.with_name(f'{node.func.value.id}.py'))]
  return sorted(out)


def table_of_options(path: pathlib.Path) -> list[str]:
  """The names of the fields `name: type = _option(...)` of a module."""
  return [node.target.id for node in ast.walk(ast.parse(path.read_text('utf-8')))
          if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
          and isinstance(node.value, ast.Call) and getattr(node.value.func, 'id', '') == '_option']


def words(line: str) -> list[str]:
  """What may stand in the place of the last word of a line that begins with `vit-jax`."""
  *before, last = line.split(' ')
  if len(before) <= 1:
    found = list(COMMANDS)
  elif before[1] not in COMMANDS:
    found = []
  elif last.startswith(('--config=', '--sweep=')):
    last = last.partition('=')[2]  # the shell takes = as the end of a word
    found = list(recipe_lib.named())
  elif last.startswith('-'):
    module = COMMANDS[before[1]][0].replace('.', '/')
    found = [*declared_flags(pathlib.Path(__file__).parent / f'{module}.py'), '--help']
  else:
    found = []
  return [word for word in found if word.startswith(last)]


if __name__ == '__main__':
  if len(sys.argv) == 3 and sys.argv[1] == '--':
    print('\n'.join(words(sys.argv[2])))
  elif len(sys.argv) == 2 and sys.argv[1] in _SHELLS:
    print(_SHELLS[sys.argv[1]], end='')
  else:
    print('error: expected a shell: vit-jax completion bash, or zsh', file=sys.stderr)
    sys.exit(1)
