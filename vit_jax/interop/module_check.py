"""What a module of jax.export may contain, checked before any backend loads it.

A custom call names a function of the process that runs the module. The address of a Python callback of another process,
for example, ends this one with a segmentation fault, and other targets can do more. So only those that say something to
the compiler are let through.
"""

from typing import Any

import numpy as np
from jax import export, tree
from jax.extend.mlir import deserialize_portable_artifact, ir
from jax.interpreters import mlir

from vit_jax.errors import UserError

DIALECTS = ('builtin', 'func', 'stablehlo', 'chlo', 'sdy')
# Checks of a batch size that is given later, and marks of sharding: the compiler removes them.
CALLS = ('shape_assertion', 'Sharding', 'SPMDFullToShardShape', 'SPMDShardToFullShape')
_HOST = ('stablehlo.infeed', 'stablehlo.outfeed', 'stablehlo.send', 'stablehlo.recv')


def check_calls(module: export.Exported, where: str) -> None:
  """Raises UserError if a module calls anything outside of itself; the message names it."""
  found: set[str] = set()
  with mlir.make_ir_context():
    deserialize_portable_artifact(module.mlir_module_serialized).operation.walk(lambda op: _visit(op, found))
  if found:
    raise UserError(f'{where}: calls {", ".join(sorted(found))}, outside of the model; expected no custom calls but '
                    f'{", ".join(CALLS)}. Such a file can run any code, so it is not loaded. Get one that '
                    'vit_jax.convert --to=stablehlo wrote')


def _visit(op, found):
  name = op.name
  if name == 'stablehlo.custom_call':
    target = ir.StringAttr(op.attributes['call_target_name']).value
    if target not in CALLS:
      found.add(target)
  elif name.partition('.')[0] not in DIALECTS or name in _HOST:
    found.add(name)
  return ir.WalkResult.ADVANCE


def check_shapes(module: export.Exported, params: dict[str, Any], shape: tuple[int, ...], where: str,
                 dtype: Any = np.uint8) -> int:
  """The width of what a module f(params, rows [b, *shape]) -> float32 [b, width] returns, such as a number of classes.

  Args:
    module: the function.
    params: those that the file has.
    shape: of a row: (H, W, C) of a picture, or (T,) of the tokens of a text.
    where: names the file.
    dtype: of the rows.

  Raises:
    UserError: it is another function, or takes other parameters or rows than the file has.
  """
  try:
    (wanted, rows), keywords = tree.unflatten(module.in_tree, module.in_avals)
    out, = module.out_avals
    shapes = {name: (tuple(aval.shape), np.dtype(aval.dtype)) for name, aval in wanted.items()}
    fine = not keywords and len(rows.shape) == len(shape) + 1 and rows.dtype == dtype and len(out.shape) == 2
  except (ValueError, TypeError, AttributeError):
    fine = False
  if not fine or out.dtype != np.float32 or not isinstance(out.shape[1], int):
    what = 'pictures uint8 [b, H, W, C]' if len(shape) == 3 else 'tokens int32 [b, T]'
    width = 'classes' if len(shape) == 3 else 'width'
    raise UserError(f'{where}: expected a function of parameters and {what} that returns float32 [b, {width}], got '
                    f'{", ".join(map(str, module.in_avals[-1:]))} -> {", ".join(map(str, module.out_avals[:3]))}')
  if tuple(rows.shape[1:]) != shape:
    said = f'preprocessing: pictures of {_by(shape)}' if len(shape) == 3 else f'length: texts of {_by(shape)} tokens'
    raise UserError(f'{where}: {said}, but the module takes {_by(rows.shape[1:])}; one of the two was changed. Export '
                    'the model again')
  if wrong := sorted(name for name in shapes.keys() | params.keys()
                     if name not in params or shapes.get(name) != (params[name].shape, params[name].dtype)):
    raise UserError(f'{where}: {len(wrong)} arrays are not those that the module takes ({", ".join(wrong[:3])}). '
                    'Export the model again')
  return out.shape[1]


def _by(shape):
  return ' x '.join(map(str, shape))
