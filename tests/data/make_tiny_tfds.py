"""Makes data sets that TFDS itself has written, which the tests read without TensorFlow.

tiny_tfds.tar.gz has pictures with a class each, tiny_captions.tar.gz pictures with captions in coco_captions' form.

  uv run --extra prepare python tests/data/make_tiny_tfds.py
"""

import pathlib
import tarfile
import tempfile

import numpy as np

TARGET = pathlib.Path(__file__).with_name('tiny_tfds.tar.gz')
CAPTIONS_TARGET = pathlib.Path(__file__).with_name('tiny_captions.tar.gz')
CLASS_NAMES = ['cat', 'dog', 'owl']


def images(split: str, n: int) -> np.ndarray:
  """The pictures of the data set, uint8 [n,8,6,3], which the tests make again for comparison."""
  raw = np.random.Philox(n + len(split)).random_raw(n * 8 * 6 * 3 // 8)  # the raw stream is stable over NumPy versions
  return raw.astype('<u8').view(np.uint8).reshape(n, 8, 6, 3)


def captions(split: str, i: int) -> list[str]:
  """The captions of picture i: one to three."""
  return [f'{split}  picture {i}', f'das Bild {i} – schön', f'obraz {i}'][:i % 3 + 1]


def main():
  import tensorflow_datasets as tfds
  features = tfds.features.FeaturesDict({
    'image': tfds.features.Image(shape=(8, 6, 3), encoding_format='png'),
    'label': tfds.features.ClassLabel(names=CLASS_NAMES),
    'boxes': tfds.features.Sequence(tfds.features.BBoxFeature()),  # a feature that is not used
  })
  sizes = {'train': 30, 'validation': 9, 'test': 6}
  splits = {}
  for split, n in sizes.items():
    labels = [-1] * n if split == 'test' else np.arange(n) % 3  # labels held back, as in imagenet2012
    splits[split] = [(i, {'image': image, 'label': int(label), 'boxes': [tfds.features.BBox(0., 0., .5, 1.)]})
                     for i, (image, label) in enumerate(zip(images(split, n), labels))]
  _write(tfds, TARGET, 'tiny', features, splits)
  _write(tfds, CAPTIONS_TARGET, 'tiny_captions', *_with_captions(tfds))


def _with_captions(tfds):
  """(features, splits) in the form of coco_captions."""
  features = tfds.features.FeaturesDict({
    'image': tfds.features.Image(encoding_format='png'),
    'image/filename': tfds.features.Text(),
    'captions': tfds.features.Sequence({'id': np.int64, 'text': np.str_}),
    'objects': tfds.features.Sequence({'label': tfds.features.ClassLabel(names=CLASS_NAMES)}),
  })
  splits = {}
  for split, n in {'train': 20, 'restval': 2, 'val': 4, 'test': 5}.items():
    splits[split] = [(i, {'image': image, 'image/filename': f'{i}.png', 'objects': [{'label': i % 3}],
                          'captions': [{'id': i, 'text': text} for text in captions(split, i)]})
                     for i, image in enumerate(images(split, n))]
  return features, splits


def _write(tfds, target, name, features, splits):
  with tempfile.TemporaryDirectory() as folder:
    tfds.dataset_builders.store_as_tfds_dataset(
      name=name, version='1.0.0', features=features, split_datasets=splits, data_dir=folder,
      file_format='array_record')
    with tarfile.open(target, 'w:gz') as tar:
      tar.add(pathlib.Path(folder, name), name)


if __name__ == '__main__':
  main()
