"""Finds pictures by a text: python -m vit_jax.search RUN FOLDER --text='a red fish' [--text=...] [--top=10]

RUN is a run folder of objective=contrast, or a SigLIP or CLIP of transformers, a folder or hf:OWNER/NAME. The pictures
of FOLDER, and of the folders in it, are computed once and kept in an index, a file in RUN (of hf:OWNER/NAME, in runs/)
or --index=FILE. When pictures come, go or change, the next search computes those
alone. A picture that cannot be read is named on stderr and left out.
"""

import hashlib
import json
import os
import sys

from absl import flags

from vit_jax import cli, commands
from vit_jax.errors import UserError
from vit_jax.printable import printable, say

_TEXT = flags.DEFINE_multi_string('text', [], 'What to look for; may be given several times.')
_TOP = flags.DEFINE_integer('top', 10, 'Number of pictures to print for each text.', lower_bound=1)
_FORMAT = flags.DEFINE_enum('format', 'table', ['table', 'json'], 'table: for reading; json: a line per text.')
_INDEX = flags.DEFINE_string('index', None, 'File of the index; default: RUN/search/NAME.npz, one for each folder.')
_STEP = flags.DEFINE_integer('step', None, 'The step of the checkpoint; default: the one that was scored on test.',
                             lower_bound=0)


def main(arguments: list[str]) -> int:
  if len(arguments) != 2 or not _TEXT.value:
    raise UserError('expected a run folder, a folder of pictures and a text: '
                    + commands.written('search', "RUN FOLDER --text='a red fish'"))
  run, folder = arguments
  if not os.path.isdir(folder):
    raise UserError(f'{folder}: expected a folder of pictures, found none')
  from vit_jax import host
  host.hush_absent_tpu()
  from vit_jax.inspection import pair_model, picture_index
  pairs = pair_model.load(run, _STEP.value)
  index = picture_index.open_index(pairs, folder, _INDEX.value or _beside(run, folder),
                                   lambda text: say(printable(text), sys.stderr))
  for text, found in zip(_TEXT.value, index.find(pairs.embedder.texts(_TEXT.value), _TOP.value), strict=True):
    if _FORMAT.value == 'json':
      print(json.dumps({'text': text, 'pictures': [{'path': path, 'cosine': round(cosine, 6)}
                                                   for path, cosine in found]}))
    else:
      say('\n'.join([printable(text), *(f'  {cosine:7.4f}  {printable(path)}' for path, cosine in found)]))
  return 0


def _beside(run, folder):
  """The file of a folder's index in the run folder, or in runs/ for a model that is in no folder here."""
  place = os.path.realpath(folder)
  digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
  beside = run if os.path.isdir(run) else 'runs'
  return os.path.join(beside, 'search', f'{os.path.basename(place) or "root"}-{digest}.npz')


if __name__ == '__main__':
  cli.run(main, positional=True)
