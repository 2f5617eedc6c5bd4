"""Captions of data sets that TFDS has written, in the form of coco_captions. See make_tiny_tfds.py."""

import tarfile

import make_tiny_tfds
import numpy as np
import pytest
import tensorflow_datasets as tfds

from vit_jax.data import caption_files, pipeline, prepare, tfds_source
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError


@pytest.fixture(name='data_dir')
def _data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  with tarfile.open(make_tiny_tfds.CAPTIONS_TARGET) as tar:
    tar.extractall(tmp_path, filter='data')
  return str(tmp_path)


def _read(data_dir, **changes):
  config = DataConfig(source='tfds:tiny_captions', data_dir=data_dir, image_size=(8, 6), batch_size=4, **changes)
  return pipeline.open_data(config).reading(['image', 'text'])


def test_each_picture_has_its_captions(data_dir):
  data = _read(data_dir)
  assert data.class_names == () and [data.size(split) for split in pipeline.SPLITS] == [20, 4, 5]
  for split, n in zip(pipeline.SPLITS, (20, 4, 5)):
    images, found = make_tiny_tfds.images(split, n), set()
    for batch in data.eval_batches(split, 7):
      for image, text in zip(batch['image'], data.tokenizer.decode(batch['text'])):
        if text:
          i = next(i for i in range(n) if (images[i] == image).all())
          assert text == caption_files.clean(make_tiny_tfds.captions(split, i)[0])
          found.add(i)
    assert found == set(range(n))
  assert sorted(map(len, data.captions('train'))) == [1] * 7 + [2] * 7 + [3] * 6
  drawn = {text for batch in data.train_batches(0, 0, 120) for text in data.tokenizer.decode(batch['text'])}
  assert drawn == {text for texts in data.captions('train') for text in texts} and 'das Bild 1 – schön' in drawn


def test_captions_are_read_once_and_indexed(data_dir, monkeypatch):
  plain = _read(data_dir)
  fingerprints = [plain.fingerprint(split) for split in pipeline.SPLITS]
  monkeypatch.setattr(tfds_source.TfdsSource, '_picked', lambda *_: pytest.fail('read again'))
  again = _read(data_dir)
  assert again.captions('train') == plain.captions('train')
  monkeypatch.undo()
  paths = prepare.index(DataConfig(source='tfds:tiny_captions', data_dir=data_dir))
  assert len(paths) == 3
  indexed = _read(data_dir)
  assert indexed.captions('val') == plain.captions('val')
  assert [indexed.fingerprint(split) for split in pipeline.SPLITS] == fingerprints


def test_pictures_without_captions_are_named(data_dir, monkeypatch):
  texts = tfds_source.TfdsSource._texts
  monkeypatch.setattr(tfds_source.TfdsSource, '_texts', lambda self, example: texts(self, example)[:-1])
  with pytest.raises(UserError, match=r'tiny_captions, \w+ record \d+: no caption, as in \d+ of \d+'):
    _read(data_dir).captions('train')


FEATURES = {'image': tfds.features.Image(), 'image/filename': tfds.features.Text()}


@pytest.mark.parametrize('more, expected', [
    ({'caption': tfds.features.Text()}, ('caption',)),
    ({'texts': tfds.features.Sequence(tfds.features.Text())}, ('texts',)),
    ({'captions': tfds.features.Sequence({'id': np.int64, 'text': np.str_})}, ('captions', 'text')),
    ({'description': np.int64, 'title': tfds.features.Text()}, ('title',)),
    ({'captions': tfds.features.Sequence({'id': np.int64})}, ()), ({'id': tfds.features.Text()}, ())])
def test_the_feature_is_found_by_name_and_type(more, expected):
  assert tfds_source._captions_key(tfds.features.FeaturesDict(FEATURES | more)) == expected


def test_classes_of_objects_are_several_labels(data_dir, monkeypatch):
  """Of data without captions the classes of each picture's objects are read, once, and indexed."""
  monkeypatch.setattr(tfds_source, '_captions_key', lambda features: ())
  config = DataConfig(source='tfds:tiny_captions', data_dir=data_dir, image_size=(8, 6), batch_size=4)
  plain = pipeline.open_data(config)
  assert plain.several_labels and plain.class_names == tuple(make_tiny_tfds.CLASS_NAMES)
  wanted = plain.labels('train')  # TFDS has put the pictures in another order
  assert wanted.dtype == np.uint8 and wanted.sum(axis=0).tolist() == [7, 7, 6] and (wanted.sum(axis=1) == 1).all()
  prepare.index(config)
  monkeypatch.setattr(tfds_source.TfdsSource, '_picked', lambda *_: pytest.fail('read again'))
  indexed = pipeline.open_data(config)
  np.testing.assert_array_equal(indexed.labels('train'), wanted)
  assert indexed.fingerprint('test') == plain.fingerprint('test')


@pytest.mark.parametrize('kind, value, wanted', [
    ('sequence', [2, 0], [1, 0, 1]), ('sequence', np.array([1]), [0, 1, 0]), ('sequence', [], [0, 0, 0]),
    ('truths', {'cat': False, 'dog': True, 'owl': False}, [0, 1, 0])])
def test_forms_of_several_labels(kind, value, wanted):
  """As voc's labels, and celeb_a's attributes."""
  names = make_tiny_tfds.CLASS_NAMES
  feature = tfds.features.Sequence(tfds.features.ClassLabel(names=names)) if kind == 'sequence' else {
      name: np.bool_ for name in names}
  features = tfds.features.FeaturesDict({'image': tfds.features.Image(), 'found': feature})
  key = tfds_source._several_key(features)
  assert key == ('found',) and tfds_source._names(features, key) == tuple(names)
  source = object.__new__(tfds_source.TfdsSource)
  source.__dict__.update(several_key=key, class_names=tuple(names))
  assert source._several({'found': value}).tolist() == wanted
