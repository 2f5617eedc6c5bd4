"""Folders as people have them: names of splits, links, loose pictures, suffixes, broken and dark ones."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_jax.data import folder_names, pictures
from vit_jax.data.config import DataConfig
from vit_jax.data.pipeline import open_data
from vit_jax.data.sources import open_sources
from vit_jax.errors import UserError


def save(path, seed=0, size=(6, 8), kind='png', **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path, kind, **options)


def classes(place, n=3, names=('cats', 'dogs')):
  for k, name in enumerate(names):
    for i in range(n):
      save(place / name / f'{i}.png', 10 * k + i)
  return place


def opened(place):
  return open_sources(DataConfig(source=f'folder:{place}'))


@pytest.mark.parametrize('train, val, test', [
    ('train', 'valid', 'test'), ('Train', 'Validation', 'Test'), ('training', 'dev', 'testing'),
    ('TRAIN', 'val', 'TEST'), ('training_set', 'validation-set', 'test_set'), ('train_data', 'val data', 'Test Images'),
])
def test_names_of_splits(tmp_path, train, val, test):
  for split, n in ((train, 4), (val, 2), (test, 3)):
    classes(tmp_path / split, n)
  assert {split: len(source) for split, source in opened(tmp_path).items()} == {'train': 8, 'val': 4, 'test': 6}


@pytest.mark.parametrize('name', ['trains', 'contest', 'testudo', 'valley', 'developers', 'train1'])
def test_other_names_are_classes(tmp_path, name):
  assert folder_names.split_of(name) is None
  assert opened(classes(tmp_path, names=(name, 'other')))['train'].class_names == tuple(sorted((name, 'other')))


def test_a_class_may_be_called_test(tmp_path):
  assert opened(classes(tmp_path, names=('control', 'test')))['train'].class_names == ('control', 'test')


def test_two_folders_of_one_split_and_classes_beside_splits_are_refused(tmp_path):
  classes(tmp_path / 'train'), classes(tmp_path / 'val')
  classes(tmp_path / 'cats')
  with pytest.raises(UserError, match="has 'train' beside 'cats', which is no split"):
    opened(tmp_path)
  classes(tmp_path / 'Validation')
  with pytest.raises(UserError, match="'Validation' and 'val' both mean val"):
    opened(tmp_path)


def test_splits_inside_of_classes_are_refused(tmp_path):
  """Subfolders of a class are its pictures: those of test would be trained on."""
  for name in ('cats', 'dogs'):
    for split in ('Train', 'test'):
      classes(tmp_path / name, 2, (split,))
  with pytest.raises(UserError, match="cats: has 'Train' and 'test' in it; expected .* outside, as in .*test/cats"):
    opened(tmp_path)


def test_a_folder_around_the_folder_is_hinted_at(tmp_path):
  """As archives unpack: pets/pets/train, beside what a Mac adds."""
  classes(tmp_path / 'pets' / 'train'), classes(tmp_path / 'pets' / 'test')
  (tmp_path / '__MACOSX' / 'pets').mkdir(parents=True)
  with pytest.raises(UserError, match="one class, 'pets'; .* It has 'test' and others in it: is it folder:.*/pets"):
    opened(tmp_path)
  assert opened(tmp_path / 'pets')['train'].class_names == ('cats', 'dogs')


def test_loose_test_pictures_are_unlabelled(tmp_path, capfd):
  classes(tmp_path / 'train', 10)
  save(tmp_path / 'test' / 'a.png'), save(tmp_path / 'test' / 'b.png')
  assert list(opened(tmp_path)) == ['train']
  said = capfd.readouterr().err
  assert '2 pictures without class folders have no labels' in said and f'vit_jax.predict RUN {tmp_path}/test' in said


def test_data_to_score_needs_no_train(tmp_path):
  classes(tmp_path / 'test', 2)
  config = DataConfig(source=f'folder:{tmp_path}')
  with pytest.raises(UserError, match='has test, but no train.*--evaluate scores a model on it'):
    open_data(config)
  data = open_data(config, to_train=False)
  assert (data.class_names, data.size('test')) == (('cats', 'dogs'), 4)
  assert sum(batch['weight'].sum() for batch in data.eval_batches('test', 3)) == 4
  with pytest.raises(UserError, match="split 'val': expected one of test"):
    data.size('val')


def test_a_link_to_above_or_to_another_class_labels_nothing(tmp_path, capfd):
  classes(tmp_path, 3)
  (tmp_path / 'cats' / 'all').symlink_to('..')
  (tmp_path / 'cats' / 'others').symlink_to('../dogs')
  (tmp_path / 'cats' / 'dog.png').symlink_to('../dogs/0.png')
  source = opened(tmp_path)['train']
  assert np.bincount(source.labels).tolist() == [3, 3]
  assert '1 links lead to pictures of another class' in capfd.readouterr().err


def test_links_to_a_common_pool_count_once(tmp_path):
  for i in range(4):
    save(tmp_path / 'pool' / f'{i}.png', i)
  data = tmp_path / 'data'
  for name, i in (('a', 0), ('a', 1), ('b', 2), ('b', 3), ('b', 0)):
    (data / name).mkdir(parents=True, exist_ok=True)
    (data / name / f'{i}.png').symlink_to(tmp_path / 'pool' / f'{i}.png')
  assert np.bincount(opened(data)['train'].labels).tolist() == [2, 2]


def test_a_class_may_be_a_link_into_another(tmp_path):
  classes(tmp_path, 2, names=('cats', 'dogs'))
  save(tmp_path / 'cats' / 'wild' / 'lynx.png', 90)
  (tmp_path / 'lynx').symlink_to('cats/wild')
  assert np.bincount(opened(tmp_path)['train'].labels).tolist() == [2, 2, 1]


def test_suffixes_are_read_or_named(tmp_path, capfd):
  classes(tmp_path, 2)
  for name in ('x.jfif', 'x.JPE', 'x.Jpeg'):
    save(tmp_path / 'cats' / name, kind='jpeg')
  for name in ('x.heic', 'y.HEIC', 'x.avif', 'x.jp2', 'x.ppm'):
    (tmp_path / 'cats' / name).write_bytes(b'')
  save(tmp_path / 'loose.png')
  assert np.bincount(opened(tmp_path)['train'].labels).tolist() == [5, 2]
  said = capfd.readouterr().err
  assert '5 pictures are of kinds that are not read (2 .heic' in said and 'convert them to JPEG or PNG' in said
  assert '1 pictures are in no class folder, such as loose.png' in said
  (tmp_path / 'birds').mkdir()
  (tmp_path / 'birds' / 'a.heic').write_bytes(b'')
  with pytest.raises(UserError, match='birds: no pictures; expected files .* found 1 .heic'):
    opened(tmp_path)


def test_broken_pictures_are_found_before_anything_else(tmp_path, capfd):
  classes(tmp_path, 9)
  whole = (tmp_path / 'cats' / '1.png').read_bytes()
  (tmp_path / 'cats' / '1.png').write_bytes(whole[:len(whole) // 2])
  (tmp_path / 'dogs' / '2.png').write_bytes(b'no picture')
  config = dict(source=f'folder:{tmp_path}', image_size=(6, 8))
  with pytest.raises(UserError, match=r'cannot read .*1.png: .* and 1 others; remove them, or set data.on_error'):
    open_data(DataConfig(**config))
  open_data(DataConfig(**config, on_error='skip'))
  assert '2 pictures cannot be read and are left out, such as' in capfd.readouterr().err


def test_a_class_with_one_picture_is_said(tmp_path, capfd):
  classes(tmp_path, 5)
  save(tmp_path / 'newt' / '0.png')
  opened(tmp_path)
  assert '1 classes have one picture, such as newt' in capfd.readouterr().err


def test_a_class_whose_name_is_not_utf8(tmp_path):
  classes(tmp_path, 2)
  os.mkdir(os.fsencode(tmp_path) + b'/caf\xe9')
  (tmp_path / os.fsdecode(b'caf\xe9') / 'a.png').write_bytes((tmp_path / 'cats' / '0.png').read_bytes())
  source = opened(tmp_path)['train']
  assert source.class_names == ('caf\\xe9', 'cats', 'dogs')
  ''.join(source.class_names).encode()
  assert pictures.decode(source.read(0), 3).shape == (6, 8, 3)


def test_the_depth_that_a_tiff_says(tmp_path, capfd):
  """4095 of 12 bits is white, whatever the file's 16 bits; without a word in the file, it is said."""
  values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
  classes(tmp_path, 3)
  for name, tags in (('said.tiff', {281: 4095}), ('dark.tiff', {})):
    Image.fromarray(values).save(tmp_path / 'cats' / name, tiffinfo=tags)
  found = {name: pictures.decode((tmp_path / 'cats' / name).read_bytes(), 1)[..., 0] for name in
           ('said.tiff', 'dark.tiff')}
  np.testing.assert_array_equal(found['said.tiff'], values >> 4)
  np.testing.assert_array_equal(found['dark.tiff'], values >> 8)
  open_data(DataConfig(source=f'folder:{tmp_path}', image_size=(6, 8)))
  said = capfd.readouterr().err
  assert '1 pictures have 16 bits and use at most 12 of them' in said and 'dark.tiff' in said


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_trees_of_such_habits(tmp_path_factory, data):
  """Each picture that is really in a class folder is read exactly once, with that class."""
  place, expected = tmp_path_factory.mktemp('tree'), {}
  splits = data.draw(st.sampled_from([('',), ('train', 'test'), ('Training', 'valid', 'Test_Set')]))
  for split in splits:
    for name in ('a', 'b', 'c'):
      for i in range(data.draw(st.integers(1, 3))):
        depth = data.draw(st.sampled_from(['', 'more', 'more/still more']))
        suffix = data.draw(st.sampled_from(['.png', '.PNG', '.apng']))
        path = place / split / name / depth / f'{i}{suffix}'
        save(path, i)
        expected.setdefault(folder_names.split_of(split) or 'train', set()).add((str(path.resolve()), name))
      for junk in data.draw(st.lists(st.sampled_from(['.DS_Store', 'Thumbs.db', 'notes.txt', '._0.png', 'x.heic']))):
        (place / split / name / junk).write_bytes(b'')
      link = place / split / name / 'link'
      if not link.exists() and (to := data.draw(st.sampled_from([None, '.', '..', '../b', 'more', '../..']))):
        link.symlink_to(to)
  found = {split: {(os.path.realpath(path), source.class_names[label]) for path, label in
                   zip(source.paths, source.labels, strict=True)} for split, source in opened(place).items()}
  assert found == expected
  assert {split: len(source) for split, source in opened(place).items()} == {k: len(v) for k, v in expected.items()}
