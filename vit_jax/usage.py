"""What --help of a command prints: its docstring, its own flags, and how to see the keys of a config."""

import shutil
import sys
import textwrap

from absl import flags

from vit_jax import commands
from vit_jax.printable import PLAIN_WIDTH

_CONFIG_KEYS = ('Any key of the config is a flag too: --config.KEY=VALUE, such as --config.train.steps=200. '
                '`{command} --config=quickstart --print_config` shows all keys and what they mean.')


def text(program: str) -> str:
  """The help of the program that is running, whose file or module is `program`."""
  found, width = own(program), shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
  lines = [(sys.modules['__main__'].__doc__ or '').strip(), '', 'flags:']
  for flag in found:
    lines += [f'  {_form(flag)}', *textwrap.wrap(_words(flag), width, initial_indent=' ' * 6,
                                                 subsequent_indent=' ' * 6)]
  if any(flag.name == 'config' for flag in found):
    lines += ['', *textwrap.wrap(_CONFIG_KEYS.format(command=commands.written('train')), width, break_on_hyphens=False)]
  return '\n'.join([*lines, '', '--helpfull shows the flags of libraries too.'])


def own(program: str) -> list[flags.Flag]:
  """The flags that this package declares for a program, with --config first."""
  modules = flags.FLAGS.flags_by_module_dict()
  found = [flag for name, declared in modules.items() for flag in declared
           if name == program or name.split('.')[0] == 'vit_jax' or name.endswith('config_flags')]
  return sorted(found, key=lambda flag: flag.name != 'config')


def _form(flag):
  """How it is written: --name=VALUE, --[no]name, or --name[=VALUE]."""
  if choices := _choices(flag):
    return f'--{flag.name}={choices}'
  if isinstance(flag, flags.BooleanFlag):
    return f'--[no]{flag.name}'
  return f'--{flag.name}[=VALUE]' if flag.boolean else f'--{flag.name}=VALUE'  # [...]: with or without


def _choices(flag):
  return '|'.join(flag.parser.enum_values) if isinstance(flag, flags.EnumFlag) else ''


def _words(flag):
  """Its help, with its default where that is a value. absl writes the choices of an enum in front of its help."""
  words = flag.help.removeprefix(f'<{_choices(flag)}>: ').replace('\n', ' ')
  has_default = flag.default not in (None, False, '', []) and flag.name != 'config'
  return f'{words} Default: {flag.default}.' if has_default else words
