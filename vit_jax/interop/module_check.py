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


def check_shapes(module: export.Exported, params: dict[str, Any], image_shape: tuple[int, int, int], where: str) -> int:
  """The number of classes of a module f(params, uint8 [b, H, W, C]) -> float32 [b, classes].

  Raises:
    UserError: it is another function, or takes other parameters or pictures than the file has.
  """
  try:
    (wanted, images), keywords = tree.unflatten(module.in_tree, module.in_avals)
    out, = module.out_avals
    shapes = {name: (tuple(aval.shape), np.dtype(aval.dtype)) for name, aval in wanted.items()}
    fine = not keywords and len(images.shape) == 4 and images.dtype == np.uint8 and len(out.shape) == 2
  except (ValueError, TypeError, AttributeError):
    fine = False
  if not fine or out.dtype != np.float32 or not isinstance(out.shape[1], int):
    raise UserError(f'{where}: expected a function of parameters and pictures uint8 [b, H, W, C] that returns float32 '
                    f'[b, classes], got {", ".join(map(str, module.in_avals[-1:]))} -> '
                    f'{", ".join(map(str, module.out_avals[:3]))}')
  if tuple(images.shape[1:]) != image_shape:
    raise UserError(f'{where}: preprocessing: pictures of {_by(image_shape)}, but the module takes '
                    f'{_by(images.shape[1:])}; one of the two was changed. Export the model again')
  if wrong := sorted(name for name in shapes.keys() | params.keys()
                     if name not in params or shapes.get(name) != (params[name].shape, params[name].dtype)):
    raise UserError(f'{where}: {len(wrong)} arrays are not those that the module takes ({", ".join(wrong[:3])}). '
                    'Export the model again')
  return out.shape[1]


def _by(shape):
  return ' x '.join(map(str, shape))
