"""`--report`: a page about one run, report.html: learning curves, scores, mistakes, attention, and time spent."""

import collections
import json
import math
import os
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax import durable, goodput, records
from vit_jax.data import pipeline
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.drawing import page
from vit_jax.errors import UserError
from vit_jax.inspection import attention, overlay, several_labels, text_samples
from vit_jax.inspection.evaluation import Evaluation, confidence_words

HERE = Path(__file__).parent
PARTS = (HERE / 'run_parts.js', HERE / 'run_texts.js')  # scripts of all pages of runs
_MOST_CELLS = 100  # largest number of classes for which the page draws the confusion matrix
_MAPPED = 9  # number of mistakes, the most confident ones, whose attention is shown
_PAIRS = 12  # largest number of confused pairs of classes that are listed
# Kinds of events that an undisturbed run does not record, and the words for them.
_DISTURBED = {'resume': 'restarts', 'stopped': 'times stopped', 'failed': 'failures', 'damaged': 'damaged checkpoints',
              'unreadable': 'unreadable pictures', 'skipped': 'steps skipped', 'spike': 'jumps of loss or gradient'}


def write(evaluation: Evaluation) -> epath.Path:
  """Writes report.html into the folder of the model and returns its path."""
  folder = epath.Path(evaluation.place)
  path = (folder if folder.is_dir() else folder.parent) / 'report.html'
  durable.write(path, render(evaluation))
  return path


def render(evaluation: Evaluation) -> str:
  """The page as HTML."""
  s, run = evaluation.summary, records.read_run(evaluation.place) or {}
  several = bool(s.get('several_labels'))
  headline, confidence, score = (_of_several if several else _of_one)(s)
  if records.objective_of(evaluation.place) == 'contrast':
    score = 'zero_shot@1'
  model, found = evaluation.model, _attention(evaluation)
  data = common(evaluation.place, run, _small(s), model.preprocessing, getattr(model, 'config', None), score) | {
      'headline': headline, 'confidence': confidence, 'texts': _texts(evaluation),
      'pairs': [] if several else _pairs(s['classes']), **_pictures(evaluation, found),
      'distance': None if found is None else {'values': found.distance.tolist(), 'even': found.even}}
  return page.render(f'{data["name"]}: {headline}', [headline, data['confidence']], data, *PARTS, HERE / 'run.js')


def common(place: str, run: dict[str, Any], summary: dict[str, Any], preprocessing: Preprocessing, config: Any,
           score: str) -> dict[str, Any]:
  """What every page of a run has.

  Args:
    place: the run folder.
    run: its run.json; {}: none.
    summary: split, data, step and unreadable, and what else the page shows.
    preprocessing: of the model.
    config: the RunConfig; None: it is not known.
    score: the column of metrics.jsonl that is drawn beside the loss.
  """
  events = rows(place, records.EVENTS, records.EVENT)
  return {'name': os.path.basename(place.rstrip('/')), 'summary': summary, 'score': score,
          'facts': _facts(summary, run, preprocessing), 'curves': _curves(place, score),
          'curves_note': _curves_note(config), 'time': goodput.shares(goodput.breakdown(events)),
          'events': list(_disturbed(events)),
          'config': json.dumps(run.get('config'), indent=1) if run.get('config') else None}


def _texts(evaluation):
  """Retrieval, of a model of two towers on data with texts; else None."""
  pairs, data, s = getattr(evaluation.model, 'pairs', None), evaluation.data, evaluation.summary
  if pairs is None or data is None or data.captions(s['split']) is None:
    return None
  own = (records.read_run(evaluation.place) or {}).get('data') or {}
  scored = last_row(evaluation.place, s['split']) if data.name == own.get('name') else {}
  return {'retrieval': text_samples.retrieval(pairs, data, s['split'], scored)}


def _of_one(s):
  """(headline, words on calibration, the column of metrics.jsonl that is drawn beside the loss)."""
  low, high = s['accuracy_ci95']
  headline = f'{s["accuracy"]:.2%} of {s["examples"]:,} {s["split"]} pictures correct (95%: {low:.2%} to {high:.2%})'
  return headline, confidence_words(s), 'accuracy'


def _of_several(s):
  """The same where a picture can have several labels."""
  mean = 'no labels' if s['map'] is None else f'mean average precision {s["map"]:.2%}'
  return (f'{mean}, F1 {s["f1"]:.2%} on {s["examples"]:,} {s["split"]} pictures', several_labels.CALIBRATED, 'f1')


def _small(summary):
  """The scores, without a confusion matrix that is too large to be drawn."""
  matrix = summary['confusion']
  return summary | {'confusion': matrix if matrix is not None and len(matrix) <= _MOST_CELLS else None}


def _facts(s, run, prepare):
  """[name, value] of the facts shown beside the curves. What an older or foreign run does not record is left out."""
  inner = lambda fields, name: fields[name] if isinstance(fields.get(name), dict) else {}
  data, devices, results = (inner(run, name) for name in ('data', 'devices', 'results'))
  split = inner(data, 'split')
  number = lambda value: f'{value:,}' if isinstance(value, int) else None
  lines = {
      'family': inner(run, 'config').get('family'),
      'parameters': number(run.get('params')),
      'forward pass': f'{run["flops_per_example_forward"] / 1e9:.3g} GFLOPs per image'
                      if isinstance(run.get('flops_per_example_forward'), int) else None,
      'pictures': ' x '.join(map(str, (*prepare.size, prepare.channels))),
      'data': data.get('name'),
      'sizes': ', '.join(f'{number(split[name])} {name}' for name in pipeline.SPLITS if number(split.get(name))),
      'training': f'{number(run["steps"])} steps' if number(run.get('steps')) else None,
      'checkpoint': s['step'] and f'step {s["step"]:,}' + (
          ', the best on validation' if results.get('step') != results.get('steps') else ''),
      'scored': f'{s["split"]} of {s["data"]}' if s['data'] != data.get('name') or s['split'] != 'test' else None,
      'devices': f'{devices["count"]} x {devices.get("kind")}' if devices.get('count') else None,
      'identity': run.get('config_hash'), 'commit': _short(run.get('git'))}
  return [[name, str(value)] for name, value in lines.items() if value]


def _short(commit):
  """The first digits of a commit, and the + of code that differs from it."""
  return commit and commit[:10] + commit[40:] if isinstance(commit, str) else None


def rows(place: str, name: str, needed: Any) -> list[dict[str, Any]]:
  """The rows of a log that can be read; empty where the file does not exist (a bundle)."""
  try:
    return records.readable_rows(epath.Path(place) / name, needed)[0]
  except NotADirectoryError:
    return []


def last_row(place: str, split: str) -> dict[str, Any]:
  """The last scores of a split in metrics.jsonl; {}: there are none."""
  return next((row for row in reversed(rows(place, records.METRICS, records.ROW)) if row.get('split') == split), {})


def _curves(place, score):
  """{split: {step, loss, SCORE}} of training and validation."""
  number = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  logged = [row for row in rows(place, records.METRICS, records.ROW)
            if all(number(row.get(name)) for name in ('step', 'loss', score))]
  return {split: {name: [row[name] for row in logged if row.get('split') == split]
                  for name in ('step', 'loss', score)} for split in ('train', 'val')}


def _curves_note(config):
  if config is None:
    return ''
  augment = config.data.augment
  changed = [words for on, words in ((getattr(config.loss, 'label_smoothing', 0), 'label smoothing'),
                                     (augment.mixup, 'Mixup'), (augment.cutmix, 'CutMix'),
                                     (config.distill.teacher, 'a teacher')) if on]
  return f'The training loss includes {" and ".join(changed)}.' if changed else ''


def _disturbed(events):
  """Yields a phrase for each kind of disturbance, such as `restarts: 2, the last at step 40`."""
  kinds = collections.defaultdict(list)
  for event in events:
    kinds[str(event.get('event'))].append(event)
  for kind, words in _DISTURBED.items():
    if found := kinds[kind]:
      why = found[-1].get('why') or (kind == 'unreadable' and found[-1].get('what'))
      last = f': {why}' if why else ''
      yield f'{words}: {len(found):,}, the last at step {found[-1].get("step", "?")}{last}'


def _pairs(rows):
  """The most frequent confusions: [class, predicted class, count, share of the class]."""
  mistakes = sorted((row for row in rows if row['times']), key=lambda row: -row['times'])
  return [[row['class'], row['taken_for'], row['times'], row['times'] / row['n']] for row in mistakes[:_PAIRS]]


def _attention(evaluation):
  """The attention on the correct answers, then on some mistakes; None for models without global attention."""
  examples = [*evaluation.gallery.right, *evaluation.gallery.mistakes[:_MAPPED]]
  try:
    return attention.attention(evaluation.model, [example.picture for example in examples]) if examples else None
  except UserError:
    return None


def _pictures(evaluation, found):
  names, gallery = evaluation.model.class_names, evaluation.gallery

  def entry(example, i):
    maps = () if found is None or i >= len(found.last) else (('last', found.last[i]), ('rollout', found.rollout[i]))
    predicted, label = example.words(names)
    return {'picture': overlay.data_uri(example.picture), 'where': example.where, 'label': label,
            'predicted': predicted, 'confidence': example.confidence,
            **{name: overlay.data_uri(overlay.heat(example.picture, weights)) for name, weights in maps}}

  first = len(gallery.right)
  return {'right': [entry(example, i) for i, example in enumerate(gallery.right)],
          'mistakes': [entry(example, first + i) for i, example in enumerate(gallery.mistakes)]}
