"""A classifier as one ONNX file, for programs that know nothing of JAX; written by jax2onnx, checked by onnxruntime.

  input   images         uint8 [b, H, W, C], for any b
  output  logits         float32 [b, classes]
  output  probabilities  float32 [b, classes]: what `predict` prints
  metadata vit_jax       JSON: how pictures are prepared, the names of the classes

The matmuls are in float32, whatever the model was trained in. A file whose logits are not the model's is not written.
"""

import dataclasses
import json
import logging
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import durable, schema
from vit_jax.errors import UserError
from vit_jax.interop.classifier import as_probabilities
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel

SUFFIX = '.onnx'
_FORMAT, _KEY = 'vit_jax onnx 1', 'vit_jax'
_TOLERANCE = 1e-4  # of logits, of their largest
_BATCHES = (1, 3, 8)
_INSTALL = ("in a clone, uv run --extra onnx; elsewhere, pip install --no-deps jax2onnx && pip install onnx onnx-ir "
            'onnxruntime sympy')


def write(weights, path: str | os.PathLike) -> None:
  """Writes a model (`weights.Weights`) as ONNX.

  Raises:
    UserError: it has no head, jax2onnx or onnxruntime is not installed, or they do not take the model.
  """
  path, model = pathlib.Path(path), _model(weights)
  converter, runtime = _libraries()
  forward = _forward(weights, model)
  images = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, ' + ', '.join(map(str, weights.image_shape))), np.uint8)
  try:
    with jax.default_device(jax.devices('cpu')[0]):
      made = converter.to_onnx(forward, [images], model_name=weights.family, input_names=['images'],
                               output_names=['logits', 'probabilities'])
    _pool_in_three_axes(made)
    _describe(made, weights)
    text = made.SerializeToString()
    error = _largest_error(runtime.InferenceSession(text, _quiet(runtime)), forward, weights.image_shape)
  except Exception as error:  # the exceptions of both are not documented
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{weights.source}: --to=onnx: jax2onnx or onnxruntime does not take this {weights.family} '
                    f'({reason[:200]}); --to=stablehlo does') from error
  if not error <= _TOLERANCE:
    raise UserError(f'{weights.source}: --to=onnx: the logits of this {weights.family} come out of onnxruntime with an '
                    f'error of {error:.2g}, relative to the largest; expected at most {_TOLERANCE:g}. Nothing was '
                    'written; --to=stablehlo is another format')
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(text)
  durable.replace(temporary, path)


def _libraries():
  """(jax2onnx, onnxruntime), without the notes that they print about each shape."""
  for name, level in (('jax2onnx', logging.CRITICAL), ('onnx_ir', logging.ERROR)):
    logging.getLogger(name).setLevel(level)
  try:
    import jax2onnx
    import onnxruntime
  except ImportError as error:
    raise UserError(f'--to=onnx: expected jax2onnx and onnxruntime to be installed ({error}): {_INSTALL}') from error
  return jax2onnx, onnxruntime


def _model(weights) -> PureModel:
  """The model in float32, with plain attention: what every CPU runs."""
  weights.pure_model()  # says where there is no head
  config = weights.config
  if getattr(config, 'dtype', 'float32') != 'float32':
    config = dataclasses.replace(config, dtype='float32')
  return PureModel(weights.family, config, weights.image_shape, weights.num_classes,
                   Execution(scan=False))


def _forward(weights, model):
  def forward(images_BHWC):
    logits_BC = model.apply(weights.params, weights.stats, weights.preprocessing.normalize(images_BHWC))[0]
    logits_BC = logits_BC.astype(jnp.float32)
    return logits_BC, as_probabilities(logits_BC, weights.several_labels, weights.temperature)
  return forward


def _pool_in_three_axes(made: Any) -> None:
  """Max pooling over [1, b, H, W, C] with b as the channels; jax2onnx has b as an axis, and onnxruntime takes three."""
  graph, by_output = made.graph, {name: node for node in made.graph.node for name in node.output}
  for pool in [node for node in graph.node if node.op_type == 'MaxPool']:
    import onnx
    attributes = {a.name: a for a in pool.attribute}
    if len(attributes['kernel_shape'].ints) != 4:
      continue
    for name, attribute in attributes.items():
      if name in ('kernel_shape', 'strides', 'dilations', 'pads'):
        values = list(attribute.ints)
        kept = values[1:4] + values[5:] if name == 'pads' else values[1:]
        attribute.CopyFrom(onnx.helper.make_attribute(name, kept))
    pool.input[0] = by_output[pool.input[0]].input[0]
    (squeeze,) = (node for node in graph.node if pool.output[0] in node.input)
    axes = f'{squeeze.output[0]}_axes'
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), axes))
    squeeze.input[1] = axes
    for stale in [info for info in graph.value_info if info.name == pool.output[0]]:  # of four axes
      graph.value_info.remove(stale)


def _describe(made, weights):
  fields = {'format': _FORMAT, 'preprocessing': schema.plain(weights.preprocessing), 'class_names': weights.names(),
            'several_labels': weights.several_labels, 'temperature': weights.temperature}
  made.metadata_props.add(key=_KEY, value=json.dumps(fields))


def _quiet(runtime):
  options = runtime.SessionOptions()
  options.log_severity_level = 3
  return options


def _largest_error(session, forward, image_shape):
  """The largest difference of logits, relative to the largest logit, over random pictures in several batch sizes."""
  rng, worst = np.random.default_rng(0), 0.0
  for size in _BATCHES:
    images = rng.integers(0, 256, (size, *image_shape)).astype(np.uint8)
    right = [np.asarray(out) for out in jax.jit(forward)(images)]
    for got, expected in zip(session.run(['logits', 'probabilities'], {'images': images}), right, strict=True):
      worst = float(np.maximum(worst, np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-6)))
  return worst
