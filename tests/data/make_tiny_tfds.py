"""Makes tiny_tfds.tar.gz, a data set that TFDS itself has written, which the tests read without TensorFlow.

  uv run --extra prepare python tests/data/make_tiny_tfds.py
"""

import pathlib
import tarfile
import tempfile

import numpy as np

TARGET = pathlib.Path(__file__).with_name('tiny_tfds.tar.gz')
CLASS_NAMES = ['cat', 'dog', 'owl']


def images(split: str, n: int) -> np.ndarray:
  """The pictures of the data set, uint8 [n,8,6,3], which the tests make again for comparison."""
  raw = np.random.Philox(n + len(split)).random_raw(n * 8 * 6 * 3 // 8)  # the raw stream is stable over NumPy versions
  return raw.astype('<u8').view(np.uint8).reshape(n, 8, 6, 3)


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
  with tempfile.TemporaryDirectory() as folder:
    tfds.dataset_builders.store_as_tfds_dataset(
      name='tiny', version='1.0.0', features=features, split_datasets=splits, data_dir=folder,
      file_format='array_record')
    with tarfile.open(TARGET, 'w:gz') as tar:
      tar.add(pathlib.Path(folder, 'tiny'), 'tiny')


if __name__ == '__main__':
  main()
