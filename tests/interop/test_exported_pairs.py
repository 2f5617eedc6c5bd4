"""Both towers in one file: what is computed from it, and files that were changed."""

import json
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import vocabularies
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import exported, exported_pairs

ARRAYS = {'image': {'kernel': np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)},
          'text': {'table': np.random.default_rng(1).standard_normal((300, 4)).astype(np.float32)}}
PICTURES = np.random.default_rng(2).integers(0, 256, (3, 2, 2, 3), np.uint8)
TEXTS = ['a cat', 'мир', '']


def _unit(x):
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _images(arrays, rows):
  return _unit(rows.reshape(rows.shape[0], -1).astype(jnp.float32) @ arrays['image']['kernel'])


def _texts(arrays, rows):
  return _unit(arrays['text']['table'][rows].sum(axis=1))


@pytest.fixture(name='path')
def _path(tmp_path):
  return _write(tmp_path / 'pairs.stablehlo')


def _write(path, text=_texts, tokenizer='bytes', content=None):
  about = exported_pairs.About('sigmoid', 9.5, -8.0, ('a {}',), 8, exported_pairs.entry_of(tokenizer))
  exported_pairs.write(path, ARRAYS, {'image': _images, 'text': text}, (2, 2, 3), Preprocessing((2, 2)), about, content)
  return path


def _changed(path, **fields):
  """The file with other fields in its model.json."""
  content = exported.read_archive(str(path))
  content['model.json'] = json.dumps(json.loads(content['model.json']) | fields)
  exported.write_archive(path, content)
  return path


def test_it_computes_what_was_exported(path):
  found = exported_pairs.read(path)
  assert found.about == exported_pairs.About('sigmoid', 9.5, -8.0, ('a {}',), 8, 'bytes')
  assert found.preprocessing.size == (2, 2) and len(found.digest) == 16
  tokens = found.tokenizer.encode(TEXTS)
  np.testing.assert_allclose(found.embed('image', PICTURES), _images(ARRAYS, jnp.asarray(PICTURES)), atol=1e-6)
  np.testing.assert_allclose(found.embed('text', tokens), _texts(ARRAYS, jnp.asarray(tokens)), atol=1e-6)


def test_a_tokenizer_travels_with_it(tmp_path):
  content = vocabularies.learn(['the cat sat', 'the dog sat'], 280).encode()
  plain = _write(tmp_path / 'learnt.stablehlo', tokenizer='bpe', content=content)
  named = _write(tmp_path / 'named.stablehlo', tokenizer='~/files/model.json', content=content)  # as an entry is called
  for path in (plain, named):
    found = exported_pairs.read(path)
    assert found.about.tokenizer == 'tokenizer.json'
    assert found.tokenizer.decode(found.tokenizer.encode(['the cat'])) == ['the cat']
    assert (found.tokenizer.encode(['the cat'])[0] > 0).sum() < 6  # begin, end, and fewer tokens than bytes


@pytest.mark.parametrize('fields, said', [
    ({'format': 'vit_jax export 1'}, 'It is a classifier'), ({'loss': 'hinge'}, "loss in its model.json is 'hinge'"),
    ({'scale': float('inf')}, 'scale'), ({'bias': True}, 'bias'), ({'templates': []}, 'templates'),
    ({'templates': ['name']}, 'templates'), ({'length': '8'}, 'length'), ({'length': 16}, 'length: texts of 16 tokens'),
    ({'tokenizer': 'other.json'}, "tokenizer in its model.json is 'other.json'"),
    ({'tokenizer': 'image.bin'}, "data.text.tokenizer='image.bin'"),
    ({'tokenizer': 'model.json'}, 'no tokenizer.json'),
    ({'preprocessing': {'size': [4, 4]}}, 'pictures of 4 x 4 x 3, but the module takes 2 x 2 x 3')])
def test_a_changed_file_is_refused_by_name(path, fields, said):
  with pytest.raises(UserError, match='pairs.stablehlo: ') as refused:
    exported_pairs.read(_changed(path, **fields))
  assert said in str(refused.value)


def test_other_files_are_refused(path, tmp_path):
  with pytest.raises(UserError, match='It has two towers: give names'):
    exported.read(path)
  content = exported.read_archive(str(path))
  exported.write_archive(path, {name: data for name, data in content.items() if name != 'text.bin'})
  with pytest.raises(UserError, match='not a complete exported model'):
    exported_pairs.read(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('model.json', '{}')
  with pytest.raises(UserError, match='got a compressed one'):
    exported_pairs.read(path)
  with pytest.raises(UserError, match='no such file'):
    exported_pairs.read(tmp_path / 'none.stablehlo')
  short = exported_pairs.read(_write(tmp_path / 'short.stablehlo', lambda arrays, rows: 2 * _texts(arrays, rows)))
  with pytest.raises(UserError, match='text.bin returns vectors of lengths 2 to 2; expected 1'):
    short.embed('text', short.tokenizer.encode(TEXTS))
  with pytest.raises(UserError, match='embeddings of 3 and 4 numbers'):
    exported_pairs.read(_write(tmp_path / 'odd.stablehlo', lambda arrays, rows: _texts(arrays, rows)[:, :3]))
