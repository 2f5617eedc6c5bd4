"""Says what there is: vit-jax list [FAMILY]

Without a FAMILY: the recipes that --config takes by name, the sweeps among them, the model families with their
published sizes, and the sources of data. With one, such as vit: parameters and GFLOPs of each of its sizes, for
pictures of --image_size and --num_classes classes, which takes about a second per size.
"""

import ast
import pathlib

from absl import flags

from vit_jax import cli
from vit_jax import recipe as recipe_lib
from vit_jax.errors import UserError

_IMAGE_SIZE = flags.DEFINE_integer('image_size', 224, 'Height and width of the pictures, with a FAMILY.', 1, 16_384)
_NUM_CLASSES = flags.DEFINE_integer('num_classes', 1000, 'Number of classes, with a FAMILY.', 2, 1_000_000)


def main(arguments: list[str]) -> int:
  if len(arguments) > 1:
    raise UserError(f'expected at most one family, got {len(arguments)}: vit-jax list [FAMILY]')
  from vit_jax.console import Console
  console = Console(highlight=False)
  if arguments:
    _sizes(console, arguments[0])
  else:
    _overview(console)
  return 0


def recipes() -> list[tuple[str, str, bool]]:
  """(NAME or NAME:ARG|ARG, the first sentence of its docstring, whether it has a sweep), without running any file."""
  return [row for path in recipe_lib.named().values() if (row := _recipe(path))]


def _recipe(path: pathlib.Path) -> tuple[str, str, bool] | None:
  try:
    tree = ast.parse(path.read_text('utf-8'))
  except (OSError, SyntaxError, UnicodeDecodeError):
    return None  # --config says what is wrong with it
  functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
  if 'get_config' not in functions:
    return None
  arguments = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
               and [getattr(name, 'id', '') for name in node.targets] == ['ARGS']
               and isinstance(node.value, (ast.Tuple, ast.Constant))]
  words = (ast.get_docstring(tree) or '').partition('\n\n')[0].replace('\n', ' ')
  name = path.stem + (f'[:{"|".join(arguments[0])}]' if arguments else '')
  return name, words, 'get_sweep' in functions


def _overview(console):
  from rich.table import Table

  from vit_jax.data import sources
  from vit_jax.models import FAMILIES
  table = Table(title='recipes: --config=NAME', title_justify='left', box=None, pad_edge=False, show_header=False)
  for name, words, has_sweep in recipes():
    table.add_row(name, words + (' Also a sweep: --sweep=' + name.partition('[')[0] if has_sweep else ''))
  console.print(table)
  table = Table(title='\nfamilies: config.defaults(NAME), and their published sizes (`list NAME` counts them)',
                title_justify='left', box=None, pad_edge=False, show_header=False)
  for name, family in FAMILIES.items():
    table.add_row(name, ', '.join(family.sizes))
  console.print(table)
  console.print(f'\nsources: --config.data.source={", ".join(sources.KNOWN)}')


def _sizes(console, name):
  from rich import box
  from rich.table import Table

  from vit_jax import host
  host.hush_absent_tpu()
  table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  for column in ('size', 'parameters', 'GFLOPs per picture'):
    table.add_column(column, justify='left' if column == 'size' else 'right')
  for size, params, forward in sizes(name, _IMAGE_SIZE.value, _NUM_CLASSES.value):
    table.add_row(size, f'{params:,}', f'{forward / 1e9:.3g}')
  console.print(f'{name}: pictures of {_IMAGE_SIZE.value}x{_IMAGE_SIZE.value}x3, {_NUM_CLASSES.value:,} classes; a '
                'multiply-add is 2 FLOPs')
  console.print(table)


def sizes(name: str, image_size: int = 224, num_classes: int = 1000) -> list[tuple[str, int, int]]:
  """(size, parameters, FLOPs of a forward pass of one picture) of a family's published sizes.

  Raises:
    UserError: no such family, or a size that pictures of this size do not suit.
  """
  from vit_jax import models
  from vit_jax.cost import flops
  family, out = models.family(name), []
  for size, fields in family.sizes.items():
    model = models.PureModel(name, family.config(**fields), (image_size, image_size, 3), num_classes)
    out.append((size, flops.params(model)[0], flops.per_example(model)[0]))
  return out


if __name__ == '__main__':
  cli.run(main, positional=True)
