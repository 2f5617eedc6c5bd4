"""Writes real pictures to try things on: vit-jax samples DIR

They come out of packages that are installed, nothing is downloaded. DIR gets

  digits/0 .. digits/9    scikit-learn's 1,797 scanned digits of 8x8 pixels, one folder per class, for
                          --config.data.source=folder:DIR/digits
  unseen/                 ten of those digits that the quickstart recipe does not train on, for `predict`
  photos/                 the two photographs of scikit-learn
"""

import pathlib
import shlex
import shutil

from vit_jax import cli, commands
from vit_jax.errors import UserError
from vit_jax.printable import say


def main(arguments: list[str]) -> int:
  if len(arguments) != 1:
    raise UserError(f'expected one folder, got {len(arguments)}: vit-jax samples DIR')
  folder = pathlib.Path(arguments[0])
  count = write(folder)
  quoted, train = shlex.quote(str(folder)), commands.written('train')
  say(f'{folder}: {count:,} pictures\n'
      f'predict     {commands.written("predict", f"RUN {quoted}/unseen")}   (RUN: a run of the quickstart recipe)\n'
      f'train       {train} --config=quickstart --config.data.source=folder:{quoted}/digits\n'
      f'fine-tune   {train} --config=finetune_folder --config.data.source=folder:{quoted}/digits')
  return 0


def write(folder: pathlib.Path) -> int:
  """Writes the pictures and returns how many there are.

  Raises:
    UserError: the folder holds something already.
  """
  import sklearn
  from PIL import Image

  from vit_jax.data import sources, splits
  from vit_jax.data.config import DataConfig
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(f'{folder}: expected a new or an empty folder')
  opened = sources.open_sources(DataConfig(source='digits'))
  source = opened['train']
  test = splits.assign(opened, None, None)['test'].examples

  def save(i, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(source.images[i][:, :, 0]).save(path)

  for i, label in enumerate(source.labels):
    save(i, folder / 'digits' / str(label) / f'{i:04}.png')
  for label in range(10):
    save(next(i for i in test if source.labels[i] == label), folder / 'unseen' / f'{label}.png')
  photos = sorted(pathlib.Path(sklearn.__file__).parent.glob('datasets/images/*.jpg'))
  (folder / 'photos').mkdir()
  for photo in photos:
    shutil.copyfile(photo, folder / 'photos' / photo.name)
  return len(source.labels) + 10 + len(photos)


if __name__ == '__main__':
  cli.run(main, positional=True)
