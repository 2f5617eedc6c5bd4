import numpy as np
import pytest

from vit_jax.data import splits
from vit_jax.data.array_sources import ArraySource
from vit_jax.errors import UserError


def source(labels):
  labels = np.asarray(labels, np.int32)
  names = tuple(str(c) for c in range(labels.max() + 1))
  return ArraySource('made', names, np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


def random_labels(seed):
  rng = np.random.default_rng(seed)
  weights = rng.dirichlet(np.ones(rng.integers(2, 12)))
  return rng.choice(len(weights), size=rng.integers(50, 400), p=weights).astype(np.int32)


@pytest.mark.parametrize('seed', range(8))
def test_every_prefix_is_class_balanced(seed):
  labels = random_labels(seed)
  order = splits.balanced_order(labels, 1)
  assert sorted(order) == list(range(len(labels)))
  counts = np.bincount(labels)
  seen = np.cumsum(np.eye(len(counts))[labels[order]], axis=0)
  share = np.arange(1, len(labels) + 1)[:, None] * counts / len(labels)
  assert np.abs(seen - share).max() < 2


@pytest.mark.parametrize('seed', range(4))
def test_subsets_are_nested_for_every_size(seed):
  whole = {'train': source(random_labels(seed)), 'test': source([0, 1])}
  available = len(splits.assign(whole, 20, None)['train'].examples)
  smaller = set()
  for n in range(1, available + 1):
    subset = set(splits.assign(whole, 20, n)['train'].examples.tolist())
    assert len(subset) == n and smaller < subset
    smaller = subset


def test_equal_classes_get_equal_shares():
  parts = splits.assign({'train': source(np.arange(1000) % 10), 'test': source([0])}, 100, 400)
  assert np.bincount(parts['val'].labels).tolist() == [10] * 10
  assert np.bincount(parts['train'].labels).tolist() == [40] * 10


def test_ties_are_not_broken_in_favour_of_the_first_classes():
  order = splits.balanced_order(np.arange(1000) % 10, 1)
  assert sorted(order[:10] % 10) == list(range(10))
  assert (order[:10] % 10).tolist() != list(range(10))


def test_parts_are_disjoint_and_val_does_not_depend_on_the_subset():
  whole = {'train': source(random_labels(0))}
  all_of_it, some = splits.assign(whole, None, None), splits.assign(whole, None, 30)
  ids = [part.examples for part in all_of_it.values()]
  assert sorted(np.concatenate(ids)) == list(range(len(whole['train'])))
  np.testing.assert_array_equal(all_of_it['val'].examples, some['val'].examples)
  np.testing.assert_array_equal(all_of_it['test'].examples, some['test'].examples)


def test_default_sizes():
  parts = splits.assign({'train': source(np.arange(200_000) % 5), 'test': source([0] * 7)}, None, 0)
  assert [len(part.examples) for part in parts.values()] == [190_000, 10_000, 7]
  parts = splits.assign({'train': source(np.arange(100) % 5)}, None, None)
  assert [len(part.examples) for part in parts.values()] == [72, 8, 20]


def test_one_held_out_split_is_test_and_two_are_val_and_test():
  train, a, b = source(np.arange(100) % 2), source(np.arange(30) % 2), source(np.arange(40) % 2)
  parts = splits.assign({'train': train, 'val': a}, None, None)
  assert parts['test'].source is a and parts['val'].source is train and len(parts['val'].examples) == 10
  parts = splits.assign({'train': train, 'val': a, 'test': b}, None, None)
  assert parts['val'].source is a and len(parts['train'].examples) == 100
  parts = splits.assign({'train': train, 'val': a, 'test': b}, 10, None)
  assert np.bincount(parts['val'].labels).tolist() == [5, 5]


def test_no_val():
  parts = splits.assign({'train': source(np.arange(100) % 2), 'test': source([0])}, 0, None)
  assert len(parts['val'].examples) == 0 and len(parts['train'].examples) == 100


@pytest.mark.parametrize('val, subset, message', [
  (100, None, r'val_examples: 100, but there are only 99'),
  (10, 91, r'unique_examples: 91, but there are only 90 \(train after 10 for val\)'),
])
def test_more_examples_than_there_are(val, subset, message):
  with pytest.raises(UserError, match=message):
    splits.assign({'train': source(np.arange(100) % 2), 'test': source([0])}, val, subset)


def test_one_picture_alone_is_refused_in_words():
  with pytest.raises(UserError, match='made: 1 picture, which is the test split; expected two or more'):
    splits.assign({'train': source([0])}, None, None)
  assert len(splits.assign({'train': source([0]), 'test': source([0])}, None, None)['train'].examples) == 1
