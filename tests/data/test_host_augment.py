import io

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import host_augment, pictures
from vit_jax.data.config import Augment
from vit_jax.data.randaugment import OPERATIONS, RandAugment


def ramp(height=48, width=64):
  """A smooth colour picture, which a JPEG preserves and which shows where a box was taken from."""
  y, x = np.mgrid[:height, :width]
  return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) % 256], -1).astype(np.uint8)


def jpeg(pixels, quality=95):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'jpeg', quality=quality)
  return file.getvalue()


def test_inception_boxes_have_the_papers_areas_and_aspects():
  crop, height, width = host_augment.InceptionCrop((8, 8), 3, min_area=0.08), 400, 400
  boxes = np.array([crop.box(height, width, host_augment.generator(0, 0, row)) for row in range(3000)])
  w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
  area, log_aspect = w * h / (height * width), np.log(w / h)
  assert area.min() > 0.078 and area.max() <= 1
  assert 0.74 < np.exp(log_aspect.min()) < 0.77 and 1.3 < np.exp(log_aspect.max()) < 1.36
  small = area[area < 0.5]  # nearly every small box fits at once, so these are uniform
  assert abs(np.median(small) - 0.29) < 0.02 and abs(log_aspect.mean()) < 0.02
  centre = (boxes[:, 0] + w / 2 - width / 2) / np.maximum(width - w, 1)
  assert abs(centre.mean()) < 0.02 and centre.min() < -0.45 and centre.max() > 0.45


@pytest.mark.parametrize('min_area', [0.05, 0.3, 0.8])
def test_the_smallest_crop_of_a_recipe_is_that_of_its_option(min_area):
  crop, = host_augment.train_transforms(Augment(crop='inception', crop_min_area=min_area), (8, 8), 3)
  boxes = np.array([crop.box(200, 200, host_augment.generator(0, 0, row)) for row in range(500)])
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 200**2
  assert min_area * 0.99 < area.min() < min_area + 0.05


def test_inception_crop_of_a_very_long_picture_is_centred_with_an_allowed_aspect():
  crop = host_augment.InceptionCrop((8, 8), 3, min_area=1.0)
  left, top, right, bottom = crop.box(10, 1000, host_augment.generator(0, 0, 0))
  assert (right - left) / (bottom - top) == pytest.approx(4 / 3) and left + right == 1000 and bottom - top == 10


@pytest.mark.parametrize('make', [
  lambda: host_augment.InceptionCrop((24, 24), 3), lambda: host_augment.ResizeCenterCrop((24, 24), 3, 0.875)])
def test_jpeg_bytes_give_the_same_as_pixels(make):
  pixels, crop = ramp(480, 640), make()
  for row in range(5):
    from_bytes = crop(jpeg(pixels), host_augment.generator(0, 0, row))
    from_pixels = crop(pixels, host_augment.generator(0, 0, row))
    assert from_bytes.shape == (24, 24, 3) and from_bytes.dtype == np.uint8
    assert np.abs(from_bytes.astype(int) - from_pixels)[..., :2].mean() < 3


@pytest.mark.parametrize('name, kind', [('nearest', Image.Resampling.NEAREST), ('lanczos', Image.Resampling.LANCZOS),
                                        ('bilinear', Image.Resampling.BILINEAR), ('bicubic', Image.Resampling.BICUBIC)])
def test_an_interpolation_is_pillows_of_that_name_and_quick_decoding_is_close_to_it(name, kind):
  noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
  expected = np.asarray(Image.fromarray(noise).resize((30, 20), kind))
  np.testing.assert_array_equal(pictures.decode(noise, 3, (0, 0, 60, 40), (20, 30), name), expected)
  enlarged = [decode(jpeg(ramp()), 3, (8, 8, 40, 40), (96, 96), name).astype(int)
              for decode in (pictures.decode, pictures.decode_quickly)]
  assert np.abs(enlarged[0] - enlarged[1])[..., :2].mean() < 3


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size, box', [((375, 500), (100, 20, 420, 330)), ((1500, 2000), (100, 90, 1700, 1400)),
                                       ((64, 64), (10, 10, 40, 40)), ((375, 500), (0, 0, 500, 374.6))])
def test_quick_decoding_is_close_to_exact_decoding(size, box, channels):
  """When shrinking, shrinking while decoding, enlarging, and rounding the box; also for grey pictures."""
  for record in (jpeg(ramp(*size)), jpeg(ramp(*size)[..., 0])):
    quick, exact = (decode(record, channels, box, (224, 200), 'bilinear').astype(int)
                    for decode in (pictures.decode_quickly, pictures.decode))
    assert quick.shape == (224, 200, channels)
    smooth = np.abs(quick - exact)[..., :2]  # the third channel of a ramp jumps
    assert np.median(smooth) <= 2 and smooth.mean() < 8


def test_quick_decoding_falls_back_to_exact_decoding():
  pixels, box = ramp(60, 80), (4, 6, 54, 50)
  odd = {'png': dict(format='png'), 'turned': dict(format='jpeg', exif=b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0'
                                                   b'\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')}
  for name, options in odd.items():
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    assert pictures.size(file.getvalue()) == ((80, 60) if name == 'turned' else (60, 80))
    np.testing.assert_array_equal(pictures.decode_quickly(file.getvalue(), 3, box, (24, 24)),
                                  pictures.decode(file.getvalue(), 3, box, (24, 24)))
  file = io.BytesIO()
  Image.new('CMYK', (80, 60), (10, 200, 30, 4)).save(file, 'jpeg')
  np.testing.assert_array_equal(pictures.decode_quickly(file.getvalue(), 3, box, (24, 24)),
                                pictures.decode(file.getvalue(), 3, box, (24, 24)))
  for damaged in (jpeg(pixels)[:-40], jpeg(pixels)[:300], b'\xff\xd8', b''):
    with pytest.raises(pictures.BadPicture):
      pictures.decode_quickly(damaged, 3, box, (24, 24))


def test_jpegs_are_decoded_at_reduced_size_where_that_is_enough(monkeypatch):
  sizes = []
  real = pictures._in_mode
  monkeypatch.setattr(pictures, '_in_mode', lambda image, mode: sizes.append(image.size) or real(image, mode))
  record = jpeg(ramp(480, 640))
  whole = host_augment.ResizeCenterCrop((48, 64), 3)(record, None)
  pictures.decode(record, 3, (0, 0, 100, 100), (48, 48))
  assert sizes == [(160, 120), (640, 480)]
  assert np.abs(whole.astype(int) - host_augment.ResizeCenterCrop((48, 64), 3)(ramp(480, 640), None)).mean() < 4


def test_resize_center_crop():
  pixels = ramp(48, 64)
  same = host_augment.ResizeCenterCrop((48, 64), 3)(pixels, None)
  np.testing.assert_array_equal(same, pixels)
  middle = host_augment.ResizeCenterCrop((48, 48), 3)(pixels, None)
  np.testing.assert_array_equal(middle, pixels[:, 8:56])
  half = host_augment.ResizeCenterCrop((24, 24), 3, ratio=0.5)(pixels, None)
  np.testing.assert_array_equal(half, pixels[12:36, 20:44])
  assert host_augment.ResizeCenterCrop((96, 96), 1)(pixels, None).shape == (96, 96, 1)


def test_luma_and_repeated_grey():
  pixels = ramp()
  grey = pictures.decode(pixels, 1)
  np.testing.assert_allclose(grey[..., 0], pixels @ [0.299, 0.587, 0.114], atol=1)
  np.testing.assert_array_equal(pictures.decode(grey, 3), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', OPERATIONS)
def test_randaugment_operations_grow_with_the_magnitude(name, channels):
  checks = (np.indices((48, 64)).sum(0) % 2 * 30).astype(np.uint8)  # a texture to sharpen
  pixels = pictures.decode(ramp() // 2 + 40 + checks[..., None], channels)
  picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
  for sign in (-1, 1):
    change = []
    for magnitude in (0, 0.3, 1):
      out = np.asarray(OPERATIONS[name](picture, magnitude, sign, 128 if channels == 1 else (128,) * 3, None))
      assert out.dtype == np.uint8 and out.shape[:2] == (48, 64)
      change.append(np.abs(out.astype(float) - np.asarray(picture)).mean())
    if name == 'identity' or (name, channels) == ('color', 1):
      assert change == [0, 0, 0]
    elif name in ('auto_contrast', 'equalize'):
      assert min(change) > 5  # they have no magnitude
    elif name == 'solarize':
      assert change[0] == 0 and change[2] > 5 and change[1] <= change[2]
    else:
      assert change[0] == 0 and 0 < change[1] < change[2]


def test_randaugment_is_fixed_by_its_generator_and_draws_every_operation():
  augment, pixels = RandAugment(2, 9.0), ramp()
  draws = [augment(pixels, host_augment.generator(1, 2, row)) for row in range(60)]
  np.testing.assert_array_equal(draws[7], augment(pixels, host_augment.generator(1, 2, 7)))
  assert len({draw.tobytes() for draw in draws}) > 50
  used = []
  originals = dict(OPERATIONS)
  try:
    for name in originals:
      OPERATIONS[name] = lambda p, m, s, f, rng, name=name: used.append(name) or p
    for row in range(200):
      augment(pixels, host_augment.generator(0, 0, row))
  finally:
    OPERATIONS.update(originals)
  assert set(used) == set(OPERATIONS) and len(used) == 400


def test_randaugment_with_a_probability_and_noise():
  """As timm's rand-m9-mstd0.5-inc1: each operation with probability 1/2, at magnitudes around 9."""
  used, originals = [], dict(OPERATIONS)
  try:
    for name in originals:
      OPERATIONS[name] = lambda p, m, s, f, rng: used.append((m, f)) or p
    augment = RandAugment(2, 9.0, 0.5, 0.5, (0.485, 0.456, 0.406))
    for row in range(500):
      augment(ramp(), host_augment.generator(0, 0, row))
  finally:
    OPERATIONS.update(originals)
  magnitudes = np.array([10 * m for m, _ in used])
  assert 430 < len(used) < 570 and abs(magnitudes.mean() - 9) < 0.1 and 0.4 < magnitudes.std() < 0.55
  assert magnitudes.max() <= 10 and {fill for _, fill in used} == {(124, 116, 104)}


def test_what_randaugment_leaves_empty_has_the_mean_of_the_data():
  augment = Augment(randaugment_layers=1, randaugment_fill='mean')
  step = host_augment.train_transforms(augment, (8, 8), 3, 'bilinear', (0.2, 0.4, 0.6))[1]
  assert step.fill == (0.2, 0.4, 0.6) and RandAugment().fill == (128 / 255,)
  white = Image.fromarray(np.full((9, 9, 3), 255, np.uint8))
  turned = np.asarray(OPERATIONS['rotate'](white, 1, 1, (51, 102, 153), None))
  assert turned[0, 0].tolist() == [51, 102, 153]


@pytest.mark.parametrize('channels', [1, 3])
def test_color_jitter(channels):
  pixels = np.full((16, 16, channels), 100, np.uint8)
  means = [host_augment.ColorJitter(0.4)(pixels, host_augment.generator(0, 0, row)).mean() for row in range(400)]
  assert 58 <= min(means) < 66 and 134 < max(means) <= 142 and abs(np.mean(means) - 100) < 4
  np.testing.assert_array_equal(host_augment.ColorJitter(0.0)(ramp(), host_augment.generator(0, 0, 0)), ramp())


def test_simple_crop_shifts_the_picture_by_a_few_pixels_and_mirrors_the_edge():
  image = ramp(16, 16)
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode='reflect')
  seen = set()
  for row in range(60):
    out = host_augment.SimpleCrop((16, 16), 3, 2)(image, host_augment.generator(0, 0, row))
    places = [(y, x) for y in range(5) for x in range(5) if (padded[y:y + 16, x:x + 16] == out).all()]
    assert len(places) == 1
    seen.add(places[0])
  assert len(seen) > 15


@pytest.mark.parametrize('channels', [1, 3])
def test_three_augment_is_grey_solarised_or_blurred(channels):
  image = ramp()[..., :channels]
  luma = np.asarray(Image.fromarray(ramp()).convert('L'))[..., None] if channels == 3 else image
  kinds = {'grey': 0, 'solarised': 0, 'blurred': 0}
  for row in range(300):
    out = host_augment.ThreeAugment()(image, host_augment.generator(0, 0, row))
    assert out.shape == image.shape and out.dtype == np.uint8
    if (out == luma).all():
      kinds['grey'] += 1
    elif (out == np.where(image < 128, image, 255 - image)).all():
      kinds['solarised'] += 1
    else:
      kinds['blurred'] += 1
      assert np.abs(np.diff(out.astype(int), axis=1)).mean() <= np.abs(np.diff(image.astype(int), axis=1)).mean()
  assert min(kinds.values()) > 50  # a small blur leaves it unchanged


def test_generators_are_separate_for_every_row_step_and_seed():
  keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 10_000_000, 4095)]
  keys += [(seed, 0, 0) for seed in (1, -1, 2**63, 2**63 + 1)]
  draws = {host_augment.generator(*key).random(4).tobytes() for key in keys}
  assert len(draws) == len(keys)


def test_train_and_eval_crops():
  augment = Augment(crop='inception', randaugment_layers=2, color_jitter=0.1)
  kinds = [type(step).__name__ for step in host_augment.train_transforms(augment, (8, 8), 3)]
  assert kinds == ['InceptionCrop', 'RandAugment', 'ColorJitter']
  assert host_augment.eval_transforms(augment, (8, 8), 3)[0].ratio == 0.875
  assert host_augment.eval_transforms(Augment(), (8, 8), 3)[0].ratio == 1.0
  assert not any(step.random for step in host_augment.train_transforms(Augment(crop='pad', flip=True), (8, 8), 3))
