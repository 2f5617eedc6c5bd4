"""Every field of every family's config is fed what a person may type: it is refused in words, or it prepares a run."""

import dataclasses
import functools
import io
import math
import typing

import numpy as np
import pytest
from rich.console import Console

import vit_jax
from vit_jax import config, objectives, records
from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.models import FAMILIES
from vit_jax.objectives import OBJECTIVES
from vit_jax.rehearsal import job
from vit_jax.training import config as run_config
from vit_jax.training import loop, run
from vit_jax.training.display import Display

VIT = dict(patch_size=4, width=16, depth=1, mlp_dim=16, num_heads=2)
TINY = {
    'vit': VIT | dict(pool='gap'),
    'deit': VIT,
    'swin': dict(width=16, depths=(2,), num_heads=(2,), window_size=2, patch_size=4),
    'resnet': dict(block='basic', depths=(1,), widths=(8,), stem='full', stem_width=8),
    'convnext': dict(depths=(1,), widths=(8,), patch_size=4, kernel_size=3),
    'mixer': dict(patch_size=4, width=8, depth=1, tokens_mlp_dim=4, mlp_dim=16),
}
NUMBERS = (-1, 0, 1, 2, 1000, 10**30, 2**31 - 1, 2**31, 2**32, -(2**63), 1e38, 1e39, 1e-45, 0.5, 1.5, -0.5,
           math.nan, math.inf, -math.inf, 10**400, np.int64(3), np.float32(0.25), True)
TEXTS = ('', ' ', 'x', 'x' * 300, 'a\0b', '-1', 'None')
OTHERS = (None, (), (1,), (1, 1), (1, 2, 3), (0,) * 100, (0, 0), (-1, -1), (math.nan,), ('a', 'b'), [1], {}, {'a': 1},
          b'x')


def _leaves(cls, path=''):
  """Names of all fields of a config dataclass and of those in it."""
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    if dataclasses.is_dataclass(hints[field.name]):
      yield from _leaves(hints[field.name], f'{path}{field.name}.')
    else:
      yield path + field.name


READ_TEXT = ('caption', 'contrast')


@functools.cache
def _with_captions():
  images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
  return vit_jax.arrays(images, np.arange(100) % 10, captions=[f'picture {i}' for i in range(100)])


def _tiny(family, **changes):
  """The config of a family, or of FAMILY/OBJECTIVE."""
  family, _, objective = family.partition('/')
  c = config.defaults(family, objective or objectives.DEFAULT)
  c.model.update(TINY[family])
  c.data.batch_size, c.train.steps, c.evaluate.every = 16, 4, 4
  if objective in READ_TEXT:
    c.data.source, c.data.text.length = _with_captions(), 16
    if objective == 'contrast':
      c.loss.text.update(dict(width=16, depth=1, mlp_dim=16, num_heads=2))
  c.update_from_flattened_dict(changes)
  return c


_open = functools.lru_cache(maxsize=1)(pipeline.open_data)
FIELDS = {name: family for family in reversed(FAMILIES) for name in _leaves(run_config.run_config_class(family))}
OWN = [(family, f'model.{field.name}') for family in FAMILIES for field in dataclasses.fields(FAMILIES[family].config)]
OWN += [(f'vit/{name}', field) for name in OBJECTIVES if name != objectives.DEFAULT
        for field in _leaves(OBJECTIVES[name].Config, 'loss.')]
EVERY = OWN + [('vit', name) for name in FIELDS if not name.startswith('model.')]


def _answer(family, name, value):
  """The Run that is prepared, or the words of the refusal; anything else is raised."""
  c = _tiny(family).to_dict()  # which, unlike a ConfigDict, casts nothing by itself
  *parents, last = name.split('.')
  functools.reduce(dict.__getitem__, parents, c)[last] = value
  try:
    return run.prepare(run_config.cast(c), _open)
  except UserError as error:
    return str(error)


@pytest.mark.parametrize('family, name', [
    case if case[0] == 'vit' else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY], ids='-'.join)
def test_whatever_a_field_is_given_is_refused_in_words_or_prepared(family, name):
  for value in (*NUMBERS, *TEXTS, *OTHERS):
    answer = _answer(family, name, value)
    if isinstance(answer, str):
      key = name.rpartition('.')[2]
      assert key in answer, f'{name}={value!r}: {answer}'


@pytest.mark.parametrize('name, value, right', [
    ('evaluate.every', -1, 'evaluate.every=-1: must be at least 0; None or 0: 10 in a run; as many as the run has'),
    ('system.log_every', -5, 'system.log_every=-5: must be at least 0; None or 0: 50 rows a run'),
    ('optimizer.clip_norm', -1.0, 'optimizer.clip_norm=-1.0: must be 0 (off) or positive'),
    ('loss.label_smoothing', 2.0, 'loss.label_smoothing=2.0: must be at least 0 and below 1'),
    ('optimizer.epsilon', -1e-8, 'optimizer.epsilon=-1e-08: must be from 1e-30 to 1'),
    ('optimizer.weight_decay', math.nan, 'optimizer.weight_decay=nan: must be at least 0, and finite'),
    ('optimizer.learning_rate', 1e38, 'optimizer.learning_rate=1e+38: must be from 0 to 1e+19'),
    ('optimizer.beta2', 1 - 1e-12, 'must be at least 0 and below 1'),  # it is 1 in float32
    ('evaluate.patience', -1, 'evaluate.patience=-1: must be at least 0; 0: off'),
    ('system.workers', -2, 'system.workers=-2: must be from 0 to 1,024'),
    ('seed', -1, 'seed=-1: must be from 0 to 4,294,967,295'),
    ('seed', 2**32, 'seed=4294967296: must be from 0 to 4,294,967,295'),
    ('train.epochs', math.inf, 'train.epochs=inf: must be at least 0, and finite'),
    ('train.epochs', math.nan, 'train.epochs=nan: must be at least 0, and finite'),
    ('train.steps', 2**31, 'train.steps=2147483648: must be at least 0, at most 2,147,483,647'),
    ('system.keep_last', -1, 'system.keep_last=-1: must be at least 1'),
    ('data.source', 'random:100_', "data.source='random:100_': expected random, or random:N"),
    ('data.mean', (0.5, 0.5, 0.5), 'data.mean=(0.5, 0.5, 0.5): 3 numbers for pictures of 1 channel'),
    ('system.mesh.data', 0, 'sizes are at least 1'),
    ('schedule.cooldown_fraction', 2.0, 'schedule.cooldown_fraction=2.0: must be from 0 to 1'),
    ('data.augment.crop_padding', 0, 'crop=none switches cropping off'),
    ('model.width', None, 'config.model.width: expected int, got None'),
    ('model', 3, 'config.model: expected the options of Config, got 3'),
])
def test_what_is_right_is_said(name, value, right):
  assert right in _answer('vit', name, value)


@pytest.mark.slow
@pytest.mark.parametrize('changes', [
    {'optimizer.clip_norm': None, 'optimizer.beta1': 0.0, 'optimizer.epsilon': 1e-30, 'loss.label_smoothing': 0.99,
     'data.augment.mixup': 1e-3, 'evaluate.every': 2**31 - 1, 'system.keep_last': 2**31 - 1,
     'system.save_minutes': 1e38},
    {'optimizer.name': 'sgd', 'optimizer.momentum': 0.9999999, 'optimizer.clip_norm': 1e-37, 'data.std': 1e-3,
     'system.log_every': 2, 'system.keep_every': 1, 'seed': 2**32 - 1, 'data.augment.repeats': 16},
    {'optimizer.learning_rate': 0, 'optimizer.ema_decay': 0.9999999, 'model.layer_scale': 0.0, 'model.epsilon': 1e-20,
     'data.unique_examples': 1, 'evaluate.patience': 2**31 - 1, 'system.steps_per_call': 1_024},
], ids=['adamw', 'sgd', 'no learning'])
def test_what_is_allowed_at_the_ends_of_the_ranges_trains(changes, tmp_path):
  loop.train(run.prepare(run_config.cast(_tiny('vit', **changes)), _open), tmp_path,
             Display(Console(file=io.StringIO())))
  losses = [row['loss'] for row in records.read_rows(tmp_path / records.METRICS) if row['split'] == 'train']
  assert all(loss is not None for loss in losses) and losses[-1] < losses[0] + 0.05  # no climb


def test_a_run_and_its_plan_refuse_the_same():
  for name, value in (('optimizer.clip_norm', -1.0), ('train.most_skipped', 0), ('distill.weight', 2.0),
                      ('optimizer.train_only', ('nothing',)), ('evaluate.patience', -1), ('data.augment.repeats', 2)):
    c = _tiny('vit', **{name: value})
    answers = []
    for prepare in (run.prepare, job.open_job):
      try:
        prepare(run_config.cast(c))
        answers.append(None)
      except UserError as error:
        answers.append(str(error))
    assert answers[0] == answers[1] and (answers[0] is None) == (name == 'data.augment.repeats'), answers
