"""`--evaluate`: scores of a model on a split, printed and written as JSON, and its confusion matrix as a figure."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any

from etils import epath
from rich import box
from rich.table import Table
from rich.text import Text

from vit_jax import durable, objectives, provenance, records
from vit_jax.console import Console
from vit_jax.data import pipeline
from vit_jax.data.config import DataConfig
from vit_jax.drawing.page import finite
from vit_jax.errors import UserError
from vit_jax.inspection import figures, pair_model, predictions, several_labels
from vit_jax.inspection.predictions import Gallery, Predictions
from vit_jax.inspection.scores import scores
from vit_jax.interop.classifier import Classifier
from vit_jax.printable import printable
from vit_jax.training import trained

MOST_ROWS = 30  # of the printed table of classes; with more classes, those with the lowest recall are shown


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The evaluation of a model on a split.

  Attributes:
    place: the run folder or file from which the model was loaded.
    model: the model.
    summary: the content of the JSON file: run, step, data, split, unreadable, and the entries of `scores.scores`, or of
      `several_labels.scores`.
    predictions: the model's predictions on the split.
    gallery: some of the examples with their pictures.
    data: what was scored.
  """
  place: str
  model: Classifier
  summary: dict[str, Any]
  predictions: Predictions | several_labels.Decisions
  gallery: Gallery | several_labels.Gallery
  data: pipeline.Data | None = None


def evaluate(place: str, split: str = 'test', config: DataConfig | None = None, classes: str | None = None,
             progress: Callable[[str], None] | None = None) -> Evaluation:
  """Scores a model on a split.

  Args:
    place: a run folder, a bundle or an exported file: whatever `trained.load` reads. A run of objective=contrast tells
      the classes by their names.
    split: the name of the split.
    config: other data to score, whose classes the model must know; None: the data that the run was trained on.
    classes: which class of the data each class of the model is: a text file with a name for each, in the model's
      order, or 'order', if they are those of the data in their order; None: they have the same names.
    progress: called with a line of text that says what is done and how long it will take; None: not.

  Raises:
    UserError: there is no model or no data at the given place, the model has no data of its own and none is given, the
      split is empty, or the data has a class that the model does not know.
  """
  if (objective := records.objective_of(place)) == 'caption':
    raise UserError(f'{place}: writes texts and tells no classes; its scores are in metrics.jsonl, and on the page of '
                    f'--report={place}')
  model = pair_model.of_classes(place, config) if objective == 'contrast' else trained.load(place)
  own = getattr(model, 'config', None)
  if config is None and own is None:
    raise UserError(f'{place}: does not say what data it was trained on; give the data to score with --config')
  model = _renamed(model, classes, config or own.data)
  data = predictions.open_data(model, config or own.data)
  if model.several_labels != data.several_labels:
    one, several = 'one label for each picture', 'any number of labels'
    raise UserError(f'{place}: predicts {several if model.several_labels else one}, and {data.name} has '
                    f'{several if data.several_labels else one}')
  if model.several_labels:
    gallery = several_labels.Gallery(data, split)
    predicted = several_labels.of_split(model, data, split, see=gallery.see)
    found = several_labels.scores(predicted)
  else:
    gallery = Gallery(data, split)
    predicted = predictions.of_split(model, data, split, progress=progress or (lambda text: None), see=gallery.see)
    found = scores(predicted)
  record = records.read_run(place) if own is not None else None
  if record and config is None:
    entries = objectives.of(own).inputs(data.image_shape)
    # The fingerprint is of texts too, if they are read.
    refuse_other_data(place, record, data.reading(entries), split, 'To score other data, give their --config')
  summary = {'run': os.fspath(place), 'step': getattr(model, 'step', None), 'data': data.name, 'split': split,
             'code': provenance.code((record or {}).get('plug_ins', ())), 'git': provenance.commit(),
             'trained_by_code': (record or {}).get('code'),
             'unreadable': list(predicted.unreadable),
             **({'temperature': model.temperature} if model.temperature != 1 else {}), **found}
  return Evaluation(os.fspath(place), model, summary, predicted, gallery, data)


def _renamed(model, classes, config):
  """The model with the names of the data for its classes."""
  if classes is None:
    return model
  n = len(model.class_names)
  if classes == 'order':
    names, said = pipeline.open_data(dataclasses.replace(
        config, image_size=model.preprocessing.size, channels=model.preprocessing.channels), to_train=False
        ).class_names, 'the data have'
  else:
    try:
      names = tuple(line.strip() for line in epath.Path(classes).read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
      raise UserError(f'--classes={classes}: expected a text file with a class name in each line, or "order" '
                      f'({error})') from error
    said = f'--classes={classes} has'
  if len(names) != n or len(set(names)) != n:
    raise UserError(f'{said} {len(names)} classes, of which {len(set(names))} are different, and the model {n}; '
                    'expected one name for each class of the model, in its order')
  return dataclasses.replace(model, class_names=names)


def write(evaluation: Evaluation, out: str | None = None) -> list[epath.Path]:
  """Writes SPLIT.json and SPLIT-confusion.png into `out` and returns their paths.

  The default of `out` is the folder `evaluation` in the run folder.
  """
  folder, split = epath.Path(out) if out else _default(evaluation.place), evaluation.summary['split']
  table = folder / f'{split}.json'
  durable.write(table, json.dumps(finite(evaluation.summary)) + '\n')
  matrix = evaluation.summary['confusion']
  return [table] + ([] if matrix is None else figures.write_confusion(folder, f'{split}-confusion', evaluation.summary))


def refuse_other_data(place: str, record: dict[str, Any], data: pipeline.Data, split: str, way_on: str) -> None:
  """Raises UserError if the data are not those that a run was trained with: the scores would not be its own.

  Args:
    place: the run folder.
    record: its run.json.
    data: what its options give now, reading what its objective reads.
    split: of the data.
    way_on: what can be done about it, a sentence.
  """
  known = (record['data'].get('fingerprint') or {}).get(split)
  if known not in (None, data.fingerprint(split)):
    raise UserError(f'{place}: the {split} data of {data.name} are not those that the run was trained with (fingerprint'
                    f' {known}, now {data.fingerprint(split)}). {way_on}')


def _default(place):
  path = epath.Path(place)
  return (path if path.is_dir() else path.parent) / 'evaluation'


def show(evaluation: Evaluation, written: list[epath.Path] = (), console: Console | None = None) -> None:
  """Prints the scores and the paths of the files written. Class names are printed verbatim, without markup."""
  s, console = evaluation.summary, console or Console(highlight=False, soft_wrap=True)
  several = s.get('several_labels')
  step = '' if s['step'] is None else f', step {s["step"]:,}'
  console.print(Text(f'{s["run"]}{step}: {s["split"]} of {s["data"]}, {s["examples"]:,} pictures'))
  for line in (several_labels.words if several else _words)(s):
    console.print(line)
  if s['unreadable']:
    console.print(Text(f'{len(s["unreadable"]):,} pictures could not be read and are not counted: '
                       f'{s["unreadable"][0]}'))
  if s['trained_by_code'] not in (None, s['code']):
    console.print(f'note: trained by code {s["trained_by_code"]}, scored by code {s["code"]}')
  console.print((several_labels.table if several else _classes)(s['classes']))
  if written:
    console.print(Text(f'written: {", ".join(map(str, written))}'))


def _words(s):
  low, high = s['accuracy_ci95']
  top5 = '' if s['accuracy_top5'] is None else f', top-5 {s["accuracy_top5"]:.2%}'
  sizes = [row['n'] for row in s['classes'] if row['n']]
  balanced = f', balanced {s["balanced_accuracy"]:.2%}' if max(sizes) > 2 * min(sizes) else ''
  before = f'; {s["ece_before"]:.2%} without the temperature {s["temperature"]:.3g}' if 'ece_before' in s else ''
  return [f'accuracy {s["accuracy"]:.2%} (95%: {low:.2%} .. {high:.2%}){top5}{balanced}, loss {s["loss"]:.4f}',
          f'calibration error {s["ece"]:.2%} (15 bins{before}): {confidence_words(s)}']


def confidence_words(summary: dict[str, Any]) -> str:
  """Compares confidence with accuracy: `overconfident: mean confidence 92.1%, accuracy 89.9%`."""
  confident, right = summary['mean_confidence'], summary['accuracy']
  low, high = summary['accuracy_ci95']
  side = 'overconfident' if confident > high else 'underconfident' if confident < low else 'well calibrated'
  return f'{side}: mean confidence {confident:.1%}, accuracy {right:.1%}'


def _classes(rows):
  rows = [row for row in rows if row['n'] or row['predicted']]
  worst = sorted(rows, key=lambda row: -1 if row['recall'] is None else row['recall'])[:MOST_ROWS]
  table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  for name in ('class', 'n', 'recall', 'precision', 'most often taken for'):
    table.add_column(name, justify='left' if name in ('class', 'most often taken for') else 'right')
  percent = lambda value: '-' if value is None else f'{value:.1%}'
  for row in worst if len(rows) > MOST_ROWS else rows:
    taken = f'{row["taken_for"]} ({row["times"]:,})' if row['times'] else ''
    table.add_row(printable(row['class']), f'{row["n"]:,}', percent(row['recall']), percent(row['precision']),
                  printable(taken))
  if len(rows) > MOST_ROWS:
    table.caption = f'the {MOST_ROWS} with the lowest recall of {len(rows):,}; all are in the JSON file'
  return table
