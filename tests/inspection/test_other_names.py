"""A model whose classes have other names than those of the data is scored by a file of names, or by their order."""

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.inspection import evaluation
from vit_jax.training import trained

WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def album(folder, names):
  """test/NAME/*.png of scikit-learn's digits; names is {name: digit}."""
  from sklearn.datasets import load_digits
  digits = load_digits()
  for name, digit in names.items():
    (folder / 'test' / name).mkdir(parents=True)
    for i in np.flatnonzero(digits.target == digit)[:4]:
      Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(folder / 'test' / name / f'{i:04}.png')
  return DataConfig(source=f'folder:{folder}')


def test_by_a_file_of_names(workdir, tmp_path):
  data = album(tmp_path / 'data', {'three': 3, 'five': 5, 'n01234567': 9})
  with pytest.raises(UserError, match="does not know the class 'five' and 2 others .* --classes=FILE with a name in"):
    evaluation.evaluate(workdir, config=data)
  (tmp_path / 'names.txt').write_text('\n'.join((*WORDS[:9], 'n01234567')) + '\n\n')
  found = evaluation.evaluate(workdir, config=data, classes=str(tmp_path / 'names.txt'))
  assert found.predictions.labels.tolist() == [5] * 4 + [9] * 4 + [3] * 4
  assert found.summary['accuracy'] > 0.5 and found.model.class_names[9] == 'n01234567'


def test_by_their_order(workdir, tmp_path):
  data = album(tmp_path / 'data', {f'{i}. {word}': i for i, word in enumerate(WORDS)})
  with pytest.raises(UserError, match='or --classes=order if they come in the same order'):
    evaluation.evaluate(workdir, config=data)
  found = evaluation.evaluate(workdir, config=data, classes='order')
  plain = album(tmp_path / 'plain', {str(i): i for i in range(10)})
  assert found.predictions.labels.tolist() == np.repeat(np.arange(10), 4).tolist()
  assert found.summary['accuracy'] == evaluation.evaluate(workdir, config=plain).summary['accuracy'] > 0.5
  assert trained.load(workdir).class_names == tuple('0123456789')  # the run keeps its own


@pytest.mark.parametrize('text, words', [
    (None, 'expected a text file with a class name in each line, or "order"'),
    ('three\nfive\n', 'has 2 classes, of which 2 are different, and the model 10'),
    ('a\n' * 10, 'has 10 classes, of which 1 are different')])
def test_what_is_no_such_file(workdir, tmp_path, text, words):
  if text is not None:
    (tmp_path / 'names.txt').write_text(text)
  data = album(tmp_path / 'data', {'three': 3, 'five': 5})
  with pytest.raises(UserError, match=words):
    evaluation.evaluate(workdir, config=data, classes=str(tmp_path / 'names.txt'))
  with pytest.raises(UserError, match='the data have 2 classes, of which 2 are different, and the model 10'):
    evaluation.evaluate(workdir, config=data, classes='order')
