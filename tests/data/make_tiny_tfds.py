"""Makes tiny_tfds.tar.gz, a data set written by TFDS itself, which the tests read without TensorFlow.

  uv run --extra prepare python tests/data/make_tiny_tfds.py
"""

import pathlib
import tarfile
import tempfile

import numpy as np

TARGET = pathlib.Path(__file__).with_name('tiny_tfds.tar.gz')
CLASS_NAMES = ['cat', 'dog', 'owl']


def images(split: str, n: int) -> np.ndarray:
  """uint8 [n,8,6,3]: what the data set holds, made again by the tests to compare with."""
  raw = np.random.Philox(n + len(split)).random_raw(n * 8 * 6 * 3 // 8)  # the raw stream: stable over NumPy's versions
  return raw.astype('<u8').view(np.uint8).reshape(n, 8, 6, 3)


def main():
  import tensorflow_datasets as tfds
  features = tfds.features.FeaturesDict({
    'image': tfds.features.Image(shape=(8, 6, 3), encoding_format='png'),
    'label': tfds.features.ClassLabel(names=CLASS_NAMES),
    'boxes': tfds.features.Sequence(tfds.features.BBoxFeature()),  # something that is not wanted
  })
  sizes = {'train': 30, 'validation': 9, 'test': 6}
  splits = {}
  for split, n in sizes.items():
    labels = [-1] * n if split == 'test' else np.arange(n) % 3  # held back, as in imagenet2012
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
