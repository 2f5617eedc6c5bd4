"""How every entry point starts and ends: flags parsed, errors put in words, exit codes."""

import math
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from vit_jax import durable, exits
from vit_jax import recipe as recipe_lib
from vit_jax.errors import UserError, nearest
from vit_jax.printable import say


def define_config(help_text: str = 'A recipe: configs/NAME.py, or configs/NAME.py:ARG.'):
  """The --config flag: --config=FILE.py[:ARG], and --config.KEY=VALUE for any key of it."""
  return config_flags.DEFINE_config_file('config', None, help_text)


def define_optional(name: str, help_text: str) -> flags.FlagHolder:
  """A flag with or without a value: None where it is not given, '' for --NAME, else the text of --NAME=TEXT."""
  return flags.DEFINE_flag(flags.Flag(_Optional(), None, name, None, help_text, boolean=True))


class _Optional(flags.ArgumentParser):
  """absl knows one kind of flag that may stand alone: it is then given the text 'true', or 'false' for --noNAME."""

  def parse(self, argument):
    return {'true': '', 'false': None}.get(argument, argument)


def recipe_name() -> str:
  """The stem of the recipe's file: configs/vit_b16.py -> vit_b16."""
  file = config_flags.get_config_filename(flags.FLAGS['config'])
  return file.partition(':')[0].rpartition('/')[2].removesuffix('.py')


def run(main: Callable[..., int | None], positional: bool = False) -> None:
  """Parses the flags, calls `main` and exits with its code; a UserError is printed and exits with 1.

  Args:
    main: called without arguments, or with the list of those that are not flags where `positional` is set.
    positional: whether there may be arguments that are not flags.
  """

  def guarded(argv):
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.FATAL)  # libraries' chatter; errors are raised too. --verbosity=0 brings it back
    if positional:
      return main(argv[1:])
    if len(argv) > 1:
      raise UserError(f'{argv[1]!r}: unexpected argument; flags start with --')
    return main()

  try:
    app.run(guarded, flags_parser=_parse)
  except UserError as error:
    say(f'error: {error}', sys.stderr)
    sys.exit(1)
  except durable.Unreachable as error:
    say(f'error: {error}. The same command may succeed later', sys.stderr)
    sys.exit(exits.LOST)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(130)


class Progress:
  """One line on a terminal that is written over and over; elsewhere a line for each thing that is done."""

  def __enter__(self):
    from rich.text import Text

    from vit_jax.console import Console
    console = Console(stderr=True)
    self._as_text = Text  # without markup
    self._status = console.status('') if console.is_terminal else None
    self._said = None
    if self._status:
      self._status.start()
    return self

  def __call__(self, text: str) -> None:
    if self._status:
      self._status.update(self._as_text(text))
    elif (what := text.rpartition(',')[0] if text.endswith(' s') else text) != self._said:
      say(text, sys.stderr)
      self._said = what

  def __exit__(self, *_):
    if self._status:
      self._status.stop()


def _check_finite():
  """The bounds of absl's flags let NaN through."""
  for name in flags.FLAGS:
    value = flags.FLAGS[name].value
    if isinstance(value, float) and not math.isfinite(value) and not name.startswith('config.'):  # checked by its room
      raise UserError(f'--{name}={value}: must be a finite number')


def _parse(argv):
  if {'--help', '-h'} & set(argv[1:]):  # absl would end with 1, as after an error
    app.usage(shorthelp=True, writeto_stdout=True)
    print('\nTry --helpfull to get a list of all flags.')
    sys.exit(0)
  overrides = [a.lstrip('-')[len('config.'):] for a in argv if a.lstrip('-').startswith('config.')]
  recipes = [a.partition('=')[2] for a in argv if a.lstrip('-').startswith('config=')]
  if recipes:
    recipe = recipe_lib.load_recipe(recipes[-1])  # config_flags hides what goes wrong in a recipe
    for override in overrides:
      recipe_lib.check_key(recipe, override.partition('=')[0])
  try:
    given, switched_off = recipe_lib.without_nones(argv) if recipes else (argv, [])
    rest = flags.FLAGS(given)
    _check_finite()
    if switched_off:
      recipe_lib.set_none(flags.FLAGS.config, switched_off)
    return rest
  except flags.UnrecognizedFlagError as error:
    if error.flagname.startswith('config.'):
      raise UserError(f'--{error.flagname}: give the recipe first, as --config=configs/quickstart.py') from error
    raise UserError(f'--{error.flagname}: no such flag{nearest(error.flagname, flags.FLAGS)}') from error
  except flags.IllegalFlagValueError as error:
    raise UserError(str(error).removeprefix('flag ')) from error
  except (flags.Error, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
    raise UserError(str(error)) from error
