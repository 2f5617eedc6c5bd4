"""How every entry point starts and ends: flags parsed, errors put in words, exit codes."""

import contextlib
import errno
import math
import os
import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

import vit_jax
from vit_jax import durable, exits, usage
from vit_jax import recipe as recipe_lib
from vit_jax.errors import UserError, nearest
from vit_jax.printable import say

# What is wrong with a place that a user has named: a file where a folder is to be, no permission, a full disk.
_OF_PLACES = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC,
              errno.EDQUOT, errno.ENAMETOOLONG}
_LENGTH_KEYS = {f'train.{name}' for name in recipe_lib.LENGTHS}


def define_config(help_text: str = 'A recipe: FILE.py or FILE.py:ARG; or the NAME of a file of ./configs or of one '
                  'that comes with this package, such as quickstart.'):
  """The --config flag: --config=FILE.py[:ARG] or NAME[:ARG], and --config.KEY=VALUE for any key of it."""
  return recipe_lib.define_flag(help_text)


def define_optional(name: str, help_text: str) -> flags.FlagHolder:
  """A flag with or without a value: None where it is not given, '' for --NAME, else the text of --NAME=TEXT."""
  return flags.DEFINE_flag(flags.Flag(_Optional(), None, name, None, help_text, boolean=True))


class _Optional(flags.ArgumentParser):
  """absl knows one kind of flag that may stand alone: it is then given the text 'true', or 'false' for --noNAME."""

  def parse(self, argument):
    return {'true': '', 'false': None}.get(argument, argument)


def recipe_file() -> str:
  """The recipe, as FILE.py or FILE.py:ARG."""
  return config_flags.get_config_filename(flags.FLAGS['config'])


def recipe_name() -> str:
  """The stem of the recipe's file: configs/vit_b16.py -> vit_b16."""
  return recipe_file().partition(':')[0].rpartition('/')[2].removesuffix('.py')


def overridden() -> set[str]:
  """The keys of the config that are given on the command line, such as 'model.width'."""
  return {name.removeprefix('config.') for name in flags.FLAGS if name.startswith('config.')}


def run(main: Callable[..., int | None], positional: bool = False) -> None:
  """Parses the flags, calls `main` and exits with its code; a UserError is printed and exits with 1.

  Args:
    main: called without arguments, or with the list of those that are not flags where `positional` is set.
    positional: whether there may be arguments that are not flags.
  """

  def guarded(argv):
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.FATAL)  # libraries' chatter; errors are raised too. --verbosity=0 brings it back
    if not positional and len(argv) > 1:
      raise UserError(f'{argv[1]!r}: unexpected argument; flags start with --')
    code = main(argv[1:]) if positional else main()
    sys.stdout.flush()  # here, where it is told if nobody reads
    return code

  try:
    app.run(guarded, flags_parser=_parse)
  except UserError as error:
    say(f'error: {error}', sys.stderr)
    sys.exit(1)
  except durable.Unreachable as error:
    say(f'error: {error}. The same command may succeed later', sys.stderr)
    sys.exit(exits.LOST)
  except BrokenPipeError:
    if _is_read():
      raise
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush of Python would complain
    sys.exit(1)
  except OSError as error:
    if error.errno not in _OF_PLACES or error.filename is None:
      raise
    say(f'error: {os.fspath(error.filename)}: cannot be written or read: {error.strerror}', sys.stderr)
    sys.exit(1)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(130)


def _is_read():
  """Whether somebody reads what is printed: not after `| head` has seen enough. What was refused is still buffered."""
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    return False
  return True


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
    print(usage.text(sys.argv[0]))
    sys.exit(0)
  if '--version' in argv[1:]:
    print(vit_jax.__version__)
    sys.exit(0)
  argv = recipe_lib.with_path(argv)
  overrides = [a.lstrip('-')[len('config.'):] for a in argv if a.lstrip('-').startswith('config.')]
  recipes = [a.partition('=')[2] for a in argv if a.lstrip('-').startswith('config=')]
  if recipes:
    # config_flags hides what goes wrong in a recipe.
    recipe = recipe_lib.decided(recipe_lib.load_recipe(recipes[-1]), argv)
    for override in overrides:
      recipe_lib.check_key(recipe, override.partition('=')[0])
  try:
    given, switched_off = recipe_lib.without_nones(argv) if recipes else (argv, [])
    rest = flags.FLAGS(given)
    _check_finite()
    if recipes:
      config = flags.FLAGS.config
      recipe_lib.set_all(config, switched_off, None)
      given_lengths = {key: config.train[key.partition('.')[2]] for key in overridden() if key in _LENGTH_KEYS}
      recipe_lib.set_all(config, recipe_lib.replaced_lengths(recipe, given_lengths), 0)
    return rest
  except flags.UnrecognizedFlagError as error:
    if error.flagname.startswith('config.'):
      raise UserError(f'--{error.flagname}: give the recipe first, as --config=configs/quickstart.py') from error
    near = nearest(error.flagname, flags.FLAGS)
    with contextlib.suppress(UserError):  # no key of the recipe either
      if recipes:
        recipe_lib.check_key(recipe, error.flagname)
        near = f'; did you mean --config.{error.flagname}?'
    raise UserError(f'--{error.flagname}: no such flag{near}') from error
  except flags.IllegalFlagValueError as error:
    raise UserError(str(error).removeprefix('flag ')) from error
  except (flags.Error, AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
    raise UserError(str(error)) from error
