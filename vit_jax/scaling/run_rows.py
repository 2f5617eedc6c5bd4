"""The row of a run folder: its final evaluation, its counts, and the settings that it shares with other runs."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import schema
from vit_jax.scaling.rows import number
from vit_jax.scaling.tables import SPLITS, Row

Curve = tuple[np.ndarray, np.ndarray]  # (examples [m], metric [m])


def row_of(name: str, folder: str, run: Row, lines: list[Row], metric: str, best_by: str,
           also: Collection[str] = ()) -> tuple[Row, Curve] | str:
  """The row and the learning curve of a run; the reason if the run has no final evaluation.

  Args:
    name: the name of the run's folder.
    folder: the name of the folder that it is in.
    run: the content of run.json.
    lines: the rows of metrics.jsonl.
    metric: a column of metrics.jsonl, SPLIT/NAME of it, or a field of the run, such as data.batch_size.
    best_by: the metric that --best_of compares runs by.
    also: more metrics for the row, of the same step.
  """
  if run.get('status') != 'finished':
    return f'not finished (status {run.get("status")!r})'
  config = run.get('config') or {}
  fields = {key: value for key, value in flat(config).items() if '.' in key}
  read = best_by if metric in fields else metric  # a law of a field, such as the best batch size, has no curve
  split, short, scored = evaluations(lines, read)
  if not scored:
    return f'no {metric} in metrics.jsonl'
  results = run.get('results') or {}
  if missing := _lost(results, scored, split, short):
    return missing
  last = next((line for line in scored if line.get('step') == results.get('step')), scored[-1])
  row = {'run': name, 'folder': folder, metric: fields[metric] if metric in fields else last[short], 'split': split,
         **settings(run, config, split), **{k: last.get(k) for k in ('examples', 'unique_examples', 'flops', 'step',
                                                                   'epochs')},
         **{key: value for key, value in fields.items() if key != metric},
         '_config': config, '_metric': metric, '_val': _on_val(lines, results, read, best_by),
         '_higher_is_better': run.get('higher_is_better')}
  for other in also:
    of, key = _parts(other)
    found = [line for line in lines if line.get('split') == (of or split) and line.get('step') == last.get('step')]
    row.update((other, line[key]) for line in found if key in line)
  curve = [(number(line.get('examples')), number(line[short])) for line in scored]
  return row, tuple(np.array([pair for pair in curve if None not in pair], float).reshape(-1, 2).T)


def evaluations(lines: list[Row], metric: str) -> tuple[str, str, list[Row]]:
  """(split, name in the rows, the rows that have it) of a metric; without a split the first of val and test."""
  split, short = _parts(metric)
  present = [s for s in ([split] if split else SPLITS[:2]) if any(line.get('split') == s for line in lines)]
  scored = [line for line in lines if present and line.get('split') == present[0] and short in line]
  return present[0] if present else split, short, scored


def _parts(metric):
  """(split, name) of a metric; '' where no split is named. Names have slashes too, such as probe/error."""
  split, _, short = metric.partition('/')
  return (split, short) if split in SPLITS else ('', metric)


def _lost(results, scored, split, short):
  """What the log lacks of a finished run, by the results in its run.json; '' if it lacks nothing."""
  step = results.get('step')
  if step is not None and step not in [line.get('step') for line in scored]:
    return (f'metrics.jsonl ends at step {scored[-1].get("step")}, but run.json has results of step {step}: copy the '
            'folder again')
  known, found = (results.get(split) or {}).get(short), next((line[short] for line in scored[::-1]
                                                               if line.get('step') == step), None)
  if number(known) is not None and number(found) is not None and number(known) != number(found):
    return f'metrics.jsonl has {short} {found} on {split} at step {step}, but run.json has {known}'
  return ''


def settings(run: Row, config: Row, split: str) -> Row:
  """The counts and settings of a run, as columns."""
  data, optimizer = run.get('data') or {}, config.get('optimizer')
  of_data, classes = config.get('data') or {}, data.get('classes')
  sizes, versions = data.get('split'), run.get('versions')
  lineage, shared = run.get('lineage'), _shared(config)
  lineage = (lineage.get('trunk') or lineage.get('parent')) if isinstance(lineage, dict) else lineage
  plain = lambda value: json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value
  return {
      'params': run.get('params'), 'params_non_embedding': run.get('params_non_embedding'), 'data': data.get('name'),
      'family': config.get('family'), 'objective': config.get('objective', 'classify'),
      'classes': len(classes) if isinstance(classes, list) else None,
      'scored_examples': sizes.get(split) if isinstance(sizes, dict) else None,
      'picture': plain(data.get('image_shape') or of_data.get('image_size')),
      'data_path': plain(of_data.get('data_dir')), 'data_contents': plain(data.get('fingerprint')),
      'versions': plain(versions), 'code': (run.get('codes') or [run])[-1].get('code'),
      'lineage': run.get('trunk_hash') or lineage or shared, '_shared': shared,
      'seed': config.get('seed'), 'config_hash': run.get('config_hash'),
      'learning_rate': optimizer.get('learning_rate') if isinstance(optimizer, dict) else None}


def _on_val(lines, results, metric, best_by):
  """The value that runs are compared by for --best_of: the metric on val, so that test scores choose nothing."""
  split, short = _parts(best_by or metric)
  scored = [line for line in lines if line.get('split') == (split if best_by and split else 'val') and short in line]
  final = [line for line in scored if line.get('step') == results.get('step')]
  return number((final or scored)[-1][short]) if scored else None


def _shared(config):
  """A digest of what the configs of branches of one trunk share; None for schedules that have no shared part."""
  schedule = config.get('schedule') or {}
  if schedule.get('name') not in ('wsd', 'rsqrt') or (config.get('evaluate') or {}).get('patience'):
    return None
  apart = {'system', 'evaluate', 'schedule', 'train'}
  shared = {key: value for key, value in config.items() if key not in apart}
  shared['schedule'] = {key: value for key, value in schedule.items() if key != 'cooldown_fraction'}
  lengths = ('steps', 'epochs', 'examples', 'flops')
  shared['train'] = {key: value for key, value in (config.get('train') or {}).items() if key not in lengths}
  return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:10]


def lineages(rows: Sequence[Row]) -> list[str]:
  """A name for each row; rows of one name are branches of one trunk, trained once or once for each of them.

  They are no independent draws. Runs share a trunk if the same one is recorded, or if their configs are equal without
  length, cooldown and evaluation. The record decides where a later version has written a config with more fields.
  """
  above = {}

  def root(name):
    while above.setdefault(name, name) != name:
      name = above[name]
    return name

  named = [str(row.get('lineage') or row.get('config_hash') or row['run']) for row in rows]
  for name, row in zip(named, rows, strict=True):
    if row.get('_shared'):
      above[root(row['_shared'])] = root(name)
  return [root(name) for name in named]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """The leaves of a nested config as {'model.width': 64, ...}, so that any field can define groups or hold-outs."""
  return {key: value for key, value in schema.flat(config).items() if isinstance(value, (str, int, float, bool))}
