"""Classes in tables: how people write them, what is read of them, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import pipeline, prepare, sources, splits
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError

FILES = ('a.png', 'b.png', 'sub/c.png', 'sub/d.png')
EXPECTED = {'a.png': {'cat'}, 'b.png': {'cat', 'hot dog'}, 'sub/c.png': set(), 'sub/d.png': {'owl'}}


@pytest.fixture(name='folder')
def _folder(tmp_path):
  folder = tmp_path / 'planet'
  (folder / 'sub').mkdir(parents=True)
  for i, name in enumerate(FILES):
    Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(folder / name)
  return folder


def read(place, **options):
  return sources.open_sources(DataConfig(source=place, **options))


def labels_of(source):
  """{path: names of its classes}"""
  root = len(str(source.root)) + 1
  name = lambda row: {source.class_names[i] for i in (np.flatnonzero(row) if np.ndim(row) else [row])}
  return {source.paths[i][root:]: name(row) for i, row in enumerate(source.labels)}


SEVERAL = {
    'separated': ('labels.csv', 'file_name,labels\na.png,cat\nb.png,cat|hot dog\nsub/c.png,\nsub/d.png,owl\n', '|'),
    'spaces about it': ('labels.tsv', 'image\ttags\na.png\tcat\nb.png\tcat ; hot dog\nsub/c.png\t\nsub/d.png\towl\n',
                        ';'),
    'rows of one picture': ('labels.csv', 'path,class\na.png,cat\nb.png,cat\nb.png,hot dog\nsub/c.png,\n'
                            'sub/d.png,owl\n', '|'),
    'columns': ('labels.csv', 'Path,cat,hot dog,owl\na.png,1,0,0\nb.png,1.0,1.0,\nsub/c.png,0,0,0\n'
                'sub/d.png,0,0,True\n', None),
    'lists': ('labels.jsonl', '\n'.join(json.dumps({'file_name': name, 'labels': sorted(EXPECTED[name])})
                                        for name in FILES), None),
    'short names': ('labels.csv', 'image_id,tags\na,cat\nb,cat|hot dog\nc,\nplanet/sub/d.png,owl\n', '|'),
}


@pytest.mark.parametrize('case', SEVERAL)
@pytest.mark.parametrize('place', ['folder:{}', 'csv:{}/{}', 'csv:{}'])
def test_several_labels_as_people_write_them(case, place, folder):
  name, text, separator = SEVERAL[case]
  (folder / name).write_text(text)
  found = read(place.format(folder, name), label_separator=separator)
  assert list(found) == ['train'] and found['train'].several_labels and found['train'].labels.dtype == np.uint8
  assert found['train'].class_names == ('cat', 'hot dog', 'owl') and labels_of(found['train']) == EXPECTED


def test_one_class_in_a_column(folder):
  (folder / 'train.csv').write_text('image_id,age,label\na,30,10\nb,40,9\nc,50,10\n')
  (folder / 'valid.csv').write_text('image_id,age,label\nd,60,9\n')
  found = read(f'csv:{folder}')
  assert list(found) == ['train', 'val'] and found['train'].class_names == ('9', '10')
  assert not found['train'].several_labels and found['train'].labels.tolist() == [1, 0, 1]
  assert found['val'].labels.tolist() == [0]


def test_a_column_of_splits_and_chosen_columns(folder):
  (folder / 'all.csv').write_text('Path,Sex,cat,owl,split\na.png,F,1,0,train\nb.png,M,0,1,train\n'
                                  'sub/c.png,F,0,0,test\n')
  found = read(f'csv:{folder}/all.csv', label_columns=('owl', 'cat'))
  assert {split: source.labels.tolist() for split, source in found.items()} == {
      'train': [[0, 1], [1, 0]], 'test': [[0, 0]]}
  assert found['test'].class_names == ('owl', 'cat')


def test_a_folder_of_splits_with_a_table_each(folder):
  for split in ('train', 'test'):
    (folder / split).mkdir()
    for name in ('x.png', 'y.png'):
      (folder / split / name).write_bytes((folder / 'a.png').read_bytes())
    (folder / split / 'labels.csv').write_text('file_name,cat,owl\nx.png,1,1\ny.png,0,1\n')
  for name in FILES:
    (folder / name).unlink()
  found = read(f'folder:{folder}')
  assert list(found) == ['train', 'test'] and found['test'].labels.tolist() == [[1, 1], [0, 1]]


WRONG = [
    ('file_name,labels\na.png,cat dog\nb.png,cat\n', {}, "label_separator=' '"),
    ('file_name,cat,owl\na.png,1,-1\nb.png,0,1\n', {}, 'line 2: owl is .-1.; expected 0 or 1'),
    ('file_name,Sex,cat,owl\na.png,F,1,0\nb.png,M,0,1\n', {}, 'label_columns=cat,owl'),
    ('file_name,cat,owl\na.png,1,0\n', {'label_columns': ('cat', 'owls')}, "did you mean 'owl'"),
    ('file_name,class\na.png,cat\nb.png,\n', {}, 'line 3: class is empty'),
    ('file_name,class\na.png,cat\na.png,owl\n', {}, "line 3: 'a.png' is 'owl', and 'cat' in a row before"),
    ('file_name,class\nx.png,cat\ny.png,owl\n', {}, 'none of the 2 pictures'),
    ('file_name,class\na.png,cat\nb.png,cat\n', {}, 'two or more'),
    ('hash,class\n1,cat\n2,owl\n', {}, 'hash,class; expected the names of pictures'),
    ('file_name,cat,owl\na.png,1,0\n', {'label_separator': '|'}, '2 columns of 0 and 1'),
]


@pytest.mark.parametrize('text, options, message', WRONG)
def test_what_has_no_meaning_is_refused(text, options, message, folder):
  (folder / 'labels.csv').write_text(text)
  with pytest.raises(UserError, match=message):
    read(f'csv:{folder}/labels.csv', **options)


def test_options_of_tables_are_for_tables_alone():
  with pytest.raises(UserError, match="label_separator=';': is for csv:FILE"):
    read('digits', label_separator=';')


def test_a_test_table_without_classes_is_refused(folder):
  (folder / 'train.csv').write_text('file_name,cat,owl\na.png,1,0\nb.png,0,1\n')
  (folder / 'test.csv').write_text('file_name\nsub/c.png\n')
  with pytest.raises(UserError, match="the table of test has no column 'cat'"):
    read(f'csv:{folder}')


def test_rows_without_a_picture_are_said(folder, capsys):
  (folder / 'labels.csv').write_text('file_name,cat,owl\na.png,1,0\nb.png,0,1\nx.png,1,1\n')
  assert len(read(f'csv:{folder}/labels.csv')['train']) == 2
  assert '1 pictures of the table are not there, such as x.png' in capsys.readouterr().err


def test_a_folder_with_a_table_needs_no_index(folder):
  (folder / 'labels.csv').write_text('file_name,cat,owl\na.png,1,0\nb.png,0,1\n')
  with pytest.raises(UserError, match='labels are in a table'):
    prepare.index(DataConfig(source=f'folder:{folder}'))


def test_parts_have_the_rarest_classes():
  """Each picture counts as the rarest of its classes: a class of ten pictures in a thousand is in every part."""
  rng = np.random.default_rng(0)
  labels = (rng.random((1000, 3)) < (0.5, 0.3, 0.0)).astype(np.uint8)
  labels[rng.permutation(1000)[:10], 2] = 1
  counts_as = splits.strata(labels)
  assert (counts_as[labels[:, 2] == 1] == 2).all() and (counts_as[~labels.any(axis=1)] == 3).all()
  order = splits.balanced_order(counts_as, 0)
  assert [labels[order[a:a + 200], 2].sum() for a in range(0, 1000, 200)] == [2] * 5


def test_batches_have_a_row_of_zeros_and_ones_for_each_picture(folder):
  (folder / 'labels.csv').write_text(SEVERAL['separated'][1])
  data = pipeline.open_data(DataConfig(source=f'folder:{folder}', label_separator='|', batch_size=3, val_examples=0))
  assert data.several_labels and data.num_classes == 3
  (batch,) = data.eval_batches('train', 4)
  assert batch['label'].shape == (4, 3) and batch['label'].dtype == np.uint8
  np.testing.assert_array_equal(batch['label'][batch['weight'] > 0], data.labels('train'))
  assert data.fingerprint('train') != pipeline.open_data(DataConfig(
      source=f'folder:{folder}', label_separator=';', val_examples=0)).fingerprint('train')
