"""Classifies pictures: python -m vit_jax.predict RUN PICTURE_OR_FOLDER... [--top=5] [--format=table|csv|json]

RUN is a run folder of vit_jax.main, a bundle, a file of vit_jax.convert --to=stablehlo (which needs no model code), or
other weights that vit_jax.convert reads. Pictures are prepared as in the evaluation of the run, or as the files of the
weights specify. A picture that cannot be read is reported on stderr and left out. The exit code is 1 if none can be
read.

Of a model whose pictures can have several labels, or none, it prints the classes with a probability above --threshold,
--top at most.

With --attention[=DIR] it also writes DIR/NAME.png for each picture, which shows what the model attends to in its last
layer and over all layers (attention rollout), and DIR/distance.png, the attention distance of each head.

With --names='a cat,a dog', RUN is a model of pictures and texts, and the names are the classes. It may also be a SigLIP
or CLIP of transformers or an OpenCLIP, a folder or hf:OWNER/NAME. --template='a drawing of {}' says how a name becomes
a text. Given several times, objective=contrast averages the texts, and objective=caption the scores, which are
log-likelihoods per byte.

With --caption, RUN is a run of objective=caption and writes a text about each picture; with --ask='what is this?' it
answers. --beams=N keeps the N best beginnings of a text, and prints the best --top of N texts. With --names too, --ask
scores the names as answers.

With --reconstruct[=DIR], RUN is a masked autoencoder (objective=reconstruct): for each picture it writes DIR/NAME.png,
the picture, what is kept of it, and what the model makes of that.
"""

import csv
import json
import os
import sys
from typing import NamedTuple

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError
from vit_jax.printable import printable, say

_TOP = flags.DEFINE_integer('top', 5, 'Number of classes to print for each picture.', lower_bound=1)
_FORMAT = flags.DEFINE_enum('format', 'table', ['table', 'csv', 'json'], 'table: for reading; csv: a line per picture '
                            'and class; json: a line per picture.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 64, 'Number of pictures to compute at a time.', lower_bound=1)
_STEP = flags.DEFINE_integer('step', None, 'The step of the checkpoint; default: the one that was scored on test.',
                             lower_bound=0)
_THRESHOLD = flags.DEFINE_float('threshold', None, 'With several labels a picture: the probability above which a class '
                                'is printed; default: 0.5.', 0, 1)
_NAMES = flags.DEFINE_list('names', None, 'Classes for a model of pictures and texts, with commas between.')
_TEMPLATE = flags.DEFINE_multi_string('template', None, 'A text about a name, with {} in its place; default: as the '
                                      'run has them.')
_CAPTION = flags.DEFINE_bool('caption', False, 'Write a text about each picture.')
_ASK = flags.DEFINE_string('ask', None, 'A question about each picture, which is answered.')
_BEAMS = flags.DEFINE_integer('beams', 1, 'Beginnings that are kept while a text is written; 1: the likeliest token.',
                              lower_bound=1, upper_bound=1_024)
_RECONSTRUCT = cli.define_optional('reconstruct', 'Folder for reconstructions; default: reconstructions.')
_ATTENTION = cli.define_optional('attention', 'Folder for attention maps; default: attention.')


def main(arguments: list[str]) -> int:
  if len(arguments) < 2:
    raise UserError('expected a run folder and pictures: '
                    + commands.written('predict', 'RUN PICTURE_OR_FOLDER...'))
  run, *places = arguments
  _check_flags()
  from vit_jax import host
  from vit_jax.data import folder_names
  host.hush_absent_tpu()
  paths = folder_names.find(places)
  if _RECONSTRUCT.value is not None:
    return _reconstruct(run, paths, _RECONSTRUCT.value or 'reconstructions')
  if _writes():
    return _write(run, paths)
  model = _load(run) if _NAMES.value is None else _by_name(run)
  least = _least(model, run)
  look = _attention(model) if _ATTENTION.value is not None else None
  write = _WRITERS[_FORMAT.value](_CLASSES)
  read = 0
  for start in range(0, len(paths), _BATCH_SIZE.value):
    named = list(_prepared(model, paths[start:start + _BATCH_SIZE.value]))
    if named:
      names, images = zip(*named)
      probabilities = model.probabilities(images, _BATCH_SIZE.value)
      for name, row in zip(names, probabilities, strict=True):
        best = [i for i in row.argsort()[::-1][:_TOP.value] if least is None or row[i] > least]
        write(name, [(model.class_names[i], float(row[i])) for i in best])
      if look:
        look.see(names, images, [f'{model.class_names[row.argmax()]}, {row.max():.1%}' for row in probabilities])
    read += len(named)
  if not read:
    raise UserError(f'none of the {len(paths)} pictures could be read')
  if look:
    say(f'attention: {look.close()}', sys.stderr)
  return 0


def _least(model, run):
  """The probability above which a class is printed; None: the best are."""
  if model.several_labels:
    return 0.5 if _THRESHOLD.value is None else _THRESHOLD.value
  if _THRESHOLD.value is not None:
    raise UserError(f'--threshold={_THRESHOLD.value}: is for a model of several labels a picture, and {run} gives one; '
                    'leave it out, --top says how many classes are printed')
  return None


def _check_flags():
  """Raises UserError for flags that do not go together: none is silently without effect."""
  asked = [name for name, flag in {'--reconstruct': _RECONSTRUCT, '--attention': _ATTENTION, '--names': _NAMES,
                                   '--caption': _CAPTION, '--ask': _ASK}.items() if flag.value not in (None, False)]
  if len(asked) > 1 and asked != ['--names', '--ask']:
    raise UserError(f'{" and ".join(asked)}: one at a time; only --ask goes with --names')
  if _TEMPLATE.value and _NAMES.value is None:
    raise UserError(f'--template={_TEMPLATE.value[0]}: is about the names of --names, which is missing')
  if _THRESHOLD.value is not None and (_RECONSTRUCT.value is not None or _writes()):
    raise UserError(f'--threshold={_THRESHOLD.value}: is about classes, and {asked[0]} prints none; leave it out')
  if _BEAMS.value > 1 and not _writes():
    raise UserError(f'--beams={_BEAMS.value}: is about the texts of --caption or --ask; leave it out')


def _writes():
  """Whether texts are asked for."""
  return _CAPTION.value or (_ASK.value is not None and _NAMES.value is None)


def _reconstruct(run, paths, folder):
  from vit_jax.inspection import reconstructions
  painter, read = reconstructions.load(run, _STEP.value), 0
  for start in range(0, len(paths), _BATCH_SIZE.value):
    if named := list(_prepared(painter.preprocessing, paths[start:start + _BATCH_SIZE.value])):
      reconstructions.write(painter, *zip(*named), folder)
      read += len(named)
  if not read:
    raise UserError(f'none of the {len(paths)} pictures could be read')
  say(f'reconstructions: {folder} (a file for each of {read:,} pictures)')
  return 0


def _write(run, paths):
  """Captions or answers."""
  import numpy as np

  from vit_jax.inspection import captioner
  model, read = captioner.load(run, _STEP.value), 0
  write = _WRITERS[_FORMAT.value](_TEXTS)
  for start in range(0, len(paths), _BATCH_SIZE.value):
    named = list(_prepared(model.preprocessing, paths[start:start + _BATCH_SIZE.value]))
    if named:
      names, images = zip(*named)
      padding = [np.zeros_like(images[0])] * (_BATCH_SIZE.value - len(images))  # one compiled program serves all
      every = model.write(np.stack([*images, *padding]), _ASK.value, _BEAMS.value)
      for name, texts in zip(names, every):
        write(name, texts[:_TOP.value])
    read += len(named)
  if not read:
    raise UserError(f'none of the {len(paths)} pictures could be read')
  return 0


def _by_name(run):
  if _is_captioner(run):
    from vit_jax.inspection import captioner
    return captioner.by_name(captioner.load(run, _STEP.value), _NAMES.value, _TEMPLATE.value, _ASK.value)
  from vit_jax.inspection import pair_model
  if _ASK.value is not None:
    raise UserError(f'--ask={_ASK.value}: is for a run of objective=caption, which {run} is not')
  return pair_model.by_name(pair_model.load(run, _STEP.value), _NAMES.value, _TEMPLATE.value)


def _is_captioner(run):
  """Whether it is a run of objective=caption."""
  from vit_jax import records
  return records.objective_of(run) == 'caption'


def _attention(model):
  from vit_jax.inspection.maps import Maps
  return Maps(model, _ATTENTION.value or 'attention')


def _load(run):
  from vit_jax.interop import exported
  if exported.is_exported(run):
    return exported.read(run)
  from vit_jax.training import trained
  return trained.load(run, _STEP.value)


def _prepared(model, paths):
  """(path, pixels) of the pictures that can be read."""
  from vit_jax.data import pictures
  for path in paths:
    try:
      yield os.fspath(path), model.prepare(path)
    except pictures.BadPicture as error:
      say(f'{printable(os.fspath(path))}: cannot be read: {error}', sys.stderr)


class _Columns(NamedTuple):
  """What is printed of a picture: several words with a number each, and how a table shows the number."""
  several: str
  word: str
  number: str
  shown: str


_CLASSES, _TEXTS = _Columns('classes', 'class', 'probability', '7.2%'), _Columns('texts', 'text', 'log_p', '8.2f')


def _table(columns):
  from vit_jax.console import Console
  console = Console(highlight=False, soft_wrap=True)

  def write(path, found):
    console.print(printable(path), style='bold')
    for word, number in found:
      console.print(f'  {number:{columns.shown}}  {printable(word)}')
  return write


def _csv(columns):
  writer = csv.writer(sys.stdout, lineterminator='\n')
  shown = printable if sys.stdout.isatty() else str  # a file gets names as they are
  writer.writerow(['path', 'rank', columns.word, columns.number])

  def write(path, found):
    for rank, (word, number) in enumerate(found, 1):
      writer.writerow([shown(path), rank, shown(word), f'{number:.6g}'])
  return write


def _json(columns):
  def write(path, found):
    rows = [{columns.word: word, columns.number: round(number, 6)} for word, number in found]
    print(json.dumps({'path': path, columns.several: rows}))
  return write


_WRITERS = {'table': _table, 'csv': _csv, 'json': _json}


if __name__ == '__main__':
  cli.run(main, positional=True)
