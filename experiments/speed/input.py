"""JPEGs to training pictures on one core: ours, tf.data's fused decode-and-crop, and torchvision's loader.

  python experiments/speed/input.py TF_PYTHON TORCH_PYTHON

500 x 375 pixels of quality 90 -> a random box (area 8% to 100%, aspect 3/4 to 4/3) as 224 x 224 -> flipped at random.
Each side is a process on one core with one thread, and prepares 500 pictures whenever it is told to; the others wait.
The pictures are scikit-learn's two photographs, cut at random places. TORCH_PYTHON needs Pillow too.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS, IMAGES, WARM_UP = 9, 500, 1


def write_pictures(folder, count=40):
  import numpy as np
  from PIL import Image
  from sklearn.datasets import load_sample_images
  random = np.random.default_rng(0)
  for i in range(count):
    photograph = Image.fromarray(load_sample_images().images[i % 2])  # 640 x 427
    left, top = random.integers(140), random.integers(52)
    photograph.crop((left, top, left + 500, top + 375)).save(f'{folder}/{i}.jpg', quality=90)


def records(folder):
  """500 JPEGs: those of the folder again and again."""
  files = sorted(os.listdir(folder))
  return [open(f'{folder}/{files[i % len(files)]}', 'rb').read() for i in range(IMAGES)]


def ours(folder):
  """A function that prepares all pictures; as a run does, but for flips, which are made on the device."""
  from vit_jax.data import host_augment
  crop, jpegs = host_augment.InceptionCrop((224, 224), 3), records(folder)

  def prepare():
    for row, jpeg in enumerate(jpegs):
      rng = host_augment.generator(0, 0, row)
      image = crop(jpeg, rng)
      _ = image[:, ::-1] if rng.random() < 0.5 else image
  return prepare


def tf_data(folder):
  """The usual pipeline of TensorFlow's models: a box is sampled, and only its rows are decoded."""
  import tensorflow as tf
  tf.config.threading.set_inter_op_parallelism_threads(1)
  tf.config.threading.set_intra_op_parallelism_threads(1)

  def crop(jpeg):
    shape = tf.image.extract_jpeg_shape(jpeg)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape, tf.constant([0., 0., 1., 1.], shape=[1, 1, 4]), min_object_covered=0, aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1), max_attempts=10, use_image_if_no_bounding_boxes=True)
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    image = tf.image.resize(image, (224, 224), 'bilinear')
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  data = tf.data.Dataset.from_tensor_slices(records(folder)).map(crop, num_parallel_calls=1).with_options(options)

  def prepare():
    for _ in data.as_numpy_iterator():
      pass
  return prepare


def torchvision(folder):
  import torch
  from PIL import Image
  from torchvision import transforms
  torch.set_num_threads(1)
  crop, jpegs = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(),
                                    transforms.PILToTensor()]), records(folder)

  def prepare():
    for jpeg in jpegs:
      crop(Image.open(io.BytesIO(jpeg)).convert('RGB'))
  return prepare


SIDES = {'ours': ours, 'tf.data': tf_data, 'torchvision': torchvision}


def pixel_error(folder):
  """The mean difference (of 255) of pixels to those of exact decoding, resized over all source pixels."""
  import numpy as np

  from vit_jax.data import host_augment, pictures
  crop, errors = host_augment.InceptionCrop((224, 224), 3), []
  for row, jpeg in enumerate(records(folder)[:100]):
    box = crop.box(375, 500, host_augment.generator(0, 0, row))
    quick, exact = (f(jpeg, 3, box, (224, 224)).astype(int) for f in (pictures.decode_quickly, pictures.decode))
    errors.append(np.abs(quick - exact).mean())
  return statistics.mean(errors)


def serve(side, folder):
  """Prepares all pictures for each line of the input, and says how many seconds it took."""
  prepare = SIDES[side](folder)
  for _ in sys.stdin:
    start = time.perf_counter()
    prepare()
    print(time.perf_counter() - start, flush=True)


def main(tf_python, torch_python):
  pythons = {'ours': sys.executable, 'tf.data': tf_python, 'torchvision': torch_python}
  core = str(max(os.sched_getaffinity(0)))
  with tempfile.TemporaryDirectory() as folder:
    write_pictures(folder)
    start = lambda side: subprocess.Popen(['taskset', '-c', core, pythons[side], __file__, side, folder],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                          text=True)
    processes, times = {side: start(side) for side in SIDES}, {side: [] for side in SIDES}
    for turn in range(WARM_UP + ROUNDS):
      for side, process in processes.items():
        process.stdin.write('\n')
        process.stdin.flush()
        seconds = float(process.stdout.readline())
        if turn >= WARM_UP:
          times[side].append(seconds)
    for process in processes.values():
      process.communicate()
    for side, values in times.items():
      ratios = sorted(b / a for a, b in zip(times['ours'], values, strict=True))
      print(f'{side:11}  {IMAGES / statistics.median(values):6,.0f} images/s; ours is {statistics.median(ratios):.2f} '
            f'times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}, {ROUNDS} rounds)')
    print(f'ours differs by {pixel_error(folder):.2f} of 255 on average from exact decoding, resized over all pixels')


if __name__ == '__main__':
  serve(*sys.argv[1:]) if sys.argv[1] in SIDES else main(*sys.argv[1:])
