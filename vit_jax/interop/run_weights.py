"""The weights of a run, from its run.json and a checkpoint."""

import contextlib
import hashlib
import json
import os

import jax
from etils import epath
from flax import traverse_util

from vit_jax import checkpoint, records, schema
from vit_jax.data import config as data_config
from vit_jax.data import pipeline
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError, nearest
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel, family


def read(workdir: os.PathLike, step: int | None = None, model: PureModel | None = None) -> Weights:
  """Reads the weights of a run: their moving average if the run has one.

  Of a run with another objective than classification these are the backbone's: the family's model without a head.

  Args:
    workdir: a folder that `vit_jax.main` wrote, local or in a bucket.
    step: the step of the checkpoint; default: the one that was scored on test, else the newest.
    model: the whole model that was trained, whose parameters are all read; None: what is of use after training.

  Raises:
    UserError: the folder has no run or no such checkpoint, or the checkpoint is damaged.
  """
  record = records.read_run(workdir)
  if record is None:
    raise UserError(f'{os.fspath(workdir)}: expected a folder that vit_jax.main wrote, found no {records.RUN} in it')
  config = record['config']
  whole, model = model is not None or is_classifier(record), model or model_of(record)
  shapes = model.param_shapes() if whole else _backbone_shapes(model)
  params = 'ema' if (config.get('optimizer') or {}).get('ema_decay') else 'params'
  with contextlib.closing(checkpoint.Checkpoints(workdir, read_only=True)) as checkpoints:
    step = _step(checkpoints.steps(), step, record, workdir)
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place),
                        {params: shapes, 'stats': model.stats_shapes()})
    tree = jax.device_get(checkpoints.restore_some(step, like))
  data = schema.cast(data_config.DataConfig, config['data'], 'config.data')
  *size, channels = model.image_shape
  preprocessing = Preprocessing(tuple(size), channels, data.mean or (0.5,), data.std or (0.5,),
                                data.interpolation or 'bilinear', data_config.eval_crop(data.augment))
  names = tuple(record['data']['classes']) if is_classifier(record) else None
  results = record.get('results') or {}
  fitted = (results.get('calibration') or {}).get('temperature', 1.0) if results.get('step') == step else 1.0
  return Weights(os.fspath(workdir), config['family'], schema.plain(model.config), tree[params], tree['stats'],
                 preprocessing, names, step, record['data'].get('several_labels', False), fitted)


def tokenizer_file(workdir: os.PathLike, tokenizer: str) -> str | None:
  """The tokenizer.json or SentencePiece model of a run with this data.text.tokenizer; None if it is no such file.

  Of a tokenizer.json the run has a copy, also of one that was learnt.
  """
  own = epath.Path(workdir) / records.TOKENIZER
  if tokenizer == 'bpe' or tokenizer.endswith('.json') and own.exists():
    return os.fspath(own)
  return os.path.expanduser(tokenizer) if tokenizer.endswith(('.json', '.model')) else None


def digest(workdir: os.PathLike, record: dict) -> str | None:
  """16 hex digits of the arrays that `read` gives, from the record of the checkpoint: the arrays are not read.

  None for a checkpoint from before there were digests.
  """
  params = 'ema' if (record['config'].get('optimizer') or {}).get('ema_decay') else 'params'
  with contextlib.closing(checkpoint.Checkpoints(workdir, read_only=True)) as checkpoints:
    every = checkpoints.record(_step(checkpoints.steps(), None, record, workdir)).get('arrays')
  if not every:
    return None
  own = {name: value for name, value in every.items() if name.partition('/')[0] in (params, 'stats')}
  return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]


def is_classifier(record: dict) -> bool:
  """Whether a run was trained to tell the classes of its data."""
  return record['config'].get('objective', 'classify') == 'classify'


def _backbone_shapes(model):
  """The shapes of the parameters that do not belong to a head."""
  shapes, roles = (traverse_util.flatten_dict(tree) for tree in (model.param_shapes(), model.param_roles()))
  return traverse_util.unflatten_dict({path: shape for path, shape in shapes.items() if roles[path] != 'output'})


def model_of(record: dict) -> PureModel:
  """The family's classifier described by run.json."""
  config, data = record['config'], record['data']
  shape = data.get('image_shape')  # absent from older runs
  if shape is None:
    shape = pipeline.open_data(schema.cast(data_config.DataConfig, config['data'], 'config.data')).image_shape
  model = schema.cast(family(config['family']).config, config['model'], 'config.model')
  return PureModel(config['family'], model, tuple(shape), len(data['classes']))


def _step(saved, wanted, record, workdir):
  if not saved:
    raise UserError(f'{os.fspath(workdir)}: no checkpoint yet')
  if wanted is None:
    scored = (record.get('results') or {}).get('step')
    return scored if scored in saved else saved[-1]
  if wanted not in saved:
    raise UserError(f'{os.fspath(workdir)}: no checkpoint of step {wanted}{nearest(str(wanted), map(str, saved))}')
  return wanted
