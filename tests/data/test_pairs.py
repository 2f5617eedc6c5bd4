"""Folders of pictures with captions, as people keep them."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import pipeline, prepare
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError

ENTRIES = ('image', 'text')


def save(folder, *names):
  """A picture of each name, of a grey level of its own."""
  for i, name in enumerate(names):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), 8 * i, np.uint8)).save(folder / name)


def captions(folder, split='train', **changes):
  """{name of a picture: its captions} of a split, or of all of a folder without splits."""
  source = pipeline.sources_lib.open_sources(DataConfig(source=f'pairs:{folder}', **changes))[split]
  assert source.class_names == () and source.labels.tolist() == [0] * len(source)
  return {os.path.relpath(path, folder): texts for path, texts in zip(source.paths, source.captions, strict=True)}


def jsonl(*rows):
  return '\n'.join(json.dumps(row, ensure_ascii=False) for row in rows)


A_AND_B = {'a.png': ('a cat', 'eine Katze'), 'sub/b.png': ('a "dog", sitting',)}


@pytest.mark.parametrize('name, content', [
    ('captions.jsonl', jsonl({'file_name': 'a.png', 'caption': ['a cat', 'eine Katze', 'a cat']},
                             {'file_name': 'sub/b.png', 'caption': 'a "dog",\n  sitting'})),
    ('metadata.jsonl', jsonl({'file_name': 'a.png', 'text': 'a cat'}, {'file_name': 'a.png', 'text': 'eine Katze'},
                             {'text': 'a "dog", sitting', 'file_name': './sub/b.png', 'width': 6})),
    ('captions.csv', 'image,caption\na.png,a cat\na.png,eine Katze\nsub\\b.png,"a ""dog"", sitting"\n'),
    ('captions.csv', '\ufefffile name;Caption_1;Caption_2\r\na.png;a cat;eine Katze\r\n'
     'b.png;"a ""dog"", sitting";\r\n'),
    ('captions.tsv', 'path\tcaption\tcaption_de\na.png\ta cat\teine Katze\nsub/b.png\t"a ""dog"", sitting"\t\n'),
    ('captions.txt', 'image,caption\na.png,a cat\na.png,eine Katze\nb.png,"a ""dog"", sitting"\n')])
def test_tables(tmp_path, name, content):
  save(tmp_path, 'a.png', 'sub/b.png')
  (tmp_path / name).write_text(content, newline='')
  assert captions(tmp_path) == A_AND_B
  if name == 'captions.tsv':  # as spreadsheets write it
    (tmp_path / name).write_bytes(content.encode('utf-16'))
    assert captions(tmp_path) == A_AND_B


ASKED = {'a.png': ('which animal?\ta cat', 'which animal?\tcat', 'how many?\t1'), 'b.png': ('a dog', 'awake?\tno')}


@pytest.mark.parametrize('name, content', [
    ('questions.jsonl', jsonl({'image': 'a.png', 'question': 'which  animal?', 'answer': ['a cat', 'cat']},
                              {'image': 'a.png', 'question': 'how many?', 'answer': 1},
                              {'image': 'b.png', 'caption': 'a dog', 'question': 'awake?', 'answers': ['no', None]})),
    ('questions.jsonl', jsonl({'image': 'a.png', 'questions': ['which animal?'] * 2 + ['how many?'],
                               'answers': ['a cat', 'cat', '1']},
                              {'image': 'b.png', 'caption': 'a dog'},
                              {'image': 'b.png', 'question': 'awake?', 'multiple_choice_answer': 'no'},
                              {'image': 'b.png', 'question': 'asleep?', 'answer': ''})),
    ('captions.csv', 'image,Question,Answer 1,Answer 2,caption\na.png,which animal?,a cat,cat,\na.png,how many?,1,,\n'
     'b.png,awake?,no,,a dog\n')])
def test_questions_and_answers(tmp_path, name, content):
  save(tmp_path, 'a.png', 'b.png')
  (tmp_path / name).write_text(content)
  assert captions(tmp_path) == ASKED
  data = pipeline.open_data(DataConfig(source=f'pairs:{tmp_path}', image_size=(6, 6), val_examples=0))
  data = data.reading(('image', 'text', 'answer_start', 'answer_bytes'))
  (batch,) = data.eval_batches('test', 1)
  (text,) = data.captions('test')
  assert data.tokenizer.decode(batch['text']) == [text[0]]
  assert batch['answer_bytes'].tolist() == [len(text[0].rpartition('\t')[2])]


def test_a_text_beside_each_picture(tmp_path):
  save(tmp_path, 'a.png', 'sub/b.png')
  (tmp_path / 'a.txt').write_text('a cat\n\n eine  Katze \n')
  (tmp_path / 'sub/b.txt').write_text('a "dog", sitting')
  assert captions(tmp_path) == A_AND_B


def test_what_is_left_out_is_named_and_counted(tmp_path, capsys):
  save(tmp_path, 'a.png', 'b.png', 'c.png', 'd.png')
  (tmp_path / 'e.heic').touch()
  (tmp_path / 'captions.jsonl').write_text(jsonl(
      {'file_name': 'a.png', 'caption': 'a'}, {'file_name': 'b.png', 'caption': [' ', None]},
      {'file_name': 'x.png', 'caption': 'gone'}, {'file_name': 'c.png', 'caption': 7}))
  assert captions(tmp_path) == {'a.png': ('a',), 'c.png': ('7',)}
  said = capsys.readouterr().err
  assert f'2 pictures have no caption, or an empty one, such as {tmp_path}/b.png' in said
  assert '1 captions are of pictures that are not there, such as x.png' in said and '1 .heic' in said


def test_accents_that_are_composed_elsewhere_are_the_same(tmp_path):
  name = unicodedata.normalize('NFD', 'Café.png')
  save(tmp_path, name)
  text = unicodedata.normalize('NFD', 'Ein Café')
  (tmp_path / 'captions.jsonl').write_text(jsonl({'file_name': 'Café.png', 'caption': text}))
  assert captions(tmp_path) == {name: ('Ein Café',)}


@pytest.mark.parametrize('whole', [False, True], ids=['a table each', 'one table'])
def test_folders_of_splits(tmp_path, whole, capsys):
  save(tmp_path, 'train/1.png', 'train/deep/2.png', 'Valid/1.png', 'test_set/1.png')
  rows = {'train/1.png': 'one', 'train/deep/2.png': 'two', 'Valid/1.png': 'three', 'test_set/1.png': 'four'}
  tables = {'.': rows} if whole else {
      split: {name.partition('/')[2]: text for name, text in rows.items() if name.startswith(split)}
      for split in ('train', 'Valid', 'test_set')}
  for place, found in tables.items():
    (tmp_path / place / 'captions.jsonl').write_text(
        jsonl(*({'file_name': name, 'caption': text} for name, text in found.items())))
  assert captions(tmp_path) == {'train/1.png': ('one',), 'train/deep/2.png': ('two',)}
  assert captions(tmp_path, 'val') == {'Valid/1.png': ('three',)}
  assert captions(tmp_path, 'test') == {'test_set/1.png': ('four',)}
  assert not capsys.readouterr().err


def test_a_picture_that_links_lead_to_is_used_once(tmp_path):
  save(tmp_path, 'b.png')
  os.symlink('b.png', tmp_path / 'a.png')
  for name in 'ab':
    (tmp_path / f'{name}.txt').write_text(name)
  assert captions(tmp_path) == {'b.png': ('b',)}


@pytest.mark.parametrize('name, content, message', [
    ('captions.jsonl', '{"file_name": "a.png", "caption": "x"}\n{"file_name"', r'captions.jsonl, line 2: no JSON'),
    ('captions.jsonl', '["a.png"]', 'line 1: expected an object'),
    ('captions.jsonl', '{"id": 3, "words": "x"}', "line 1: has 'id', 'words'; expected the name of a picture"),
    ('captions.jsonl', '{"file_name": 3, "caption": "x"}', 'file_name is 3'),
    ('captions.jsonl', '{"file_name": "a.png", "caption": {"en": "x"}}', "caption is {'en': 'x'}; expected a text"),
    ('captions.jsonl', '{"image": "a.png", "question": "a?"}', "has 'image', 'question'; .* or a question and its"),
    ('captions.jsonl', '{"image": "a.png", "question": ["a?", "b?"], "answer": ["x"]}', '2 questions in question'),
    ('captions.csv', 'image,caption\na.png,a cat, asleep\n', 'line 2: 3 values for 2 columns.* between quotes'),
    ('captions.csv', 'image,caption\na.png,"a cat\n', 'captions.csv, line'),
    ('captions.csv', b'image,caption\nb.png,x\na.png,Caf\xe9\n', 'line 3: not UTF-8'),
    ('captions.csv', 'image,caption\nother.png,x\n', '1 pictures, and none has a caption; .* names 1, such as other'),
    ('a.txt', ' \n', r'1 pictures, and none has a caption; expected captions.jsonl or captions.csv there, or a file')])
def test_malformed_captions(tmp_path, name, content, message):
  save(tmp_path, 'a.png')
  (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(UserError, match=message):
    captions(tmp_path)


def test_a_folder_that_is_not_there_and_one_without_captions_for_a_text_objective(tmp_path):
  (tmp_path / 'flowers').mkdir()
  with pytest.raises(UserError, match="pairs:.*flower: no such folder; did you mean 'flowers'"):
    captions(tmp_path / 'flower')
  for label in 'ab':
    save(tmp_path / 'flowers', f'{label}/1.png', f'{label}/2.png')
  with pytest.raises(UserError, match='has no captions, and the objective reads text; expected pairs:DIR'):
    pipeline.open_data(DataConfig(source=f'folder:{tmp_path}/flowers', val_examples=0)).reading(ENTRIES)


@pytest.fixture(name='folder')
def _folder(tmp_path):
  save(tmp_path / 'set', *(f'{i}.png' for i in range(20)))
  rows = [{'file_name': f'{i}.png', 'caption': [f'number {i}', f'Zahl {i}']} for i in range(19)]
  (tmp_path / 'set/captions.jsonl').write_text(jsonl(*rows))
  return tmp_path / 'set'


def _open(folder, **changes):
  return pipeline.open_data(DataConfig(source=f'pairs:{folder}', batch_size=4, **changes)).reading(ENTRIES)


def test_pictures_and_captions_stay_together(folder):
  data = _open(folder)
  assert data.image_shape == (6, 6, 3) and data.num_classes == 0
  assert [data.size(split) for split in pipeline.SPLITS] == [13, 2, 4]
  for workers in (0, 1):
    for batch in data.train_batches(0, 0, 5, workers=workers):
      numbers = [int(text.split()[1]) for text in data.tokenizer.decode(batch['text'])]
      assert (batch['image'][:, 0, 0, 0] // 8).tolist() == numbers


def test_a_picture_that_cannot_be_read_has_no_text(folder):
  path = folder / '3.png'
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(UserError, match='cannot read .*3.png'):
    _open(folder)
  data = _open(folder, on_error='skip', val_examples=0)
  rows = [batch for split in ('train', 'test') for batch in data.eval_batches(split, 4)]
  texts = [data.tokenizer.decode(batch['text'])[i] for batch in rows for i in range(4) if batch['weight'][i]]
  assert len(texts) == 18 and 'number 3' not in texts
  assert all(not batch['text'][batch['weight'] == 0].any() for batch in rows)


def test_an_index_says_the_same_and_notices_other_captions(folder):
  plain = _open(folder)
  config = DataConfig(source=f'pairs:{folder}')
  paths = prepare.index(config)
  assert [path.name for path in paths] == ['vit_jax-index-train.arrow']
  source = pipeline.sources_lib.open_sources(config)['train']
  assert source.index is not None and source.captions[2] == ('number 10', 'Zahl 10')
  indexed = _open(folder)
  for split in pipeline.SPLITS:
    assert indexed.captions(split) == plain.captions(split) and indexed.fingerprint(split) == plain.fingerprint(split)
  a, b = next(indexed.train_batches(0, 2, 1)), next(plain.train_batches(0, 2, 1))
  assert all((a[name] == b[name]).all() for name in a)
  with open(folder / 'captions.jsonl', 'a') as file:
    file.write('\n{"file_name": "19.png", "caption": "new"}\n')
  with pytest.raises(UserError, match='is of other data'):
    _open(folder)


def test_other_captions_are_other_data(folder):
  before = _open(folder).fingerprint('train')
  table = folder / 'captions.jsonl'
  table.write_text(table.read_text().replace('Zahl', 'zahl'))
  assert _open(folder).fingerprint('train') != before
