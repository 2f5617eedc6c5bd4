import pickle

import numpy as np
import pytest

from vit_jax.data.order import EvalOrder, TrainOrder, raw_permutation


@pytest.mark.parametrize('n, batch_size', [(10, 3), (7, 7), (100, 32), (5, 23), (1, 4)])
def test_every_epoch_is_a_permutation_and_nothing_is_dropped(n, batch_size):
  order = TrainOrder(n, batch_size, seed=1)
  epochs = 6
  stream = np.concatenate([order(step) for step in range(-(-epochs * n // batch_size))])[:epochs * n]
  for epoch in stream.reshape(epochs, n):
    assert sorted(epoch) == list(range(n))


def test_epochs_and_seeds_differ():
  first, second = np.split(np.concatenate([TrainOrder(64, 64, 0)(s) for s in (0, 1)]), 2)
  assert (first != second).any()
  assert (first != TrainOrder(64, 64, 1)(0)).any()


def test_large_and_negative_seeds_keep_all_their_bits():
  seeds = [2**63, 2**63 + 1, 2**64 - 2, -1, 0]
  assert len({raw_permutation(64, seed, 1).tobytes() for seed in seeds}) == len(seeds)


def test_a_batch_depends_only_on_seed_and_step():
  fresh = [TrainOrder(50, 16, 3)(step) for step in range(12)]
  used = TrainOrder(50, 16, 3)
  for step in (11, 0, 5, 5, 2, 9):  # in any order, and through a worker's pickle
    np.testing.assert_array_equal(used(step), fresh[step])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(used))(step), fresh[step])


def test_golden_order():
  """If this changes, every resumed run sees other data."""
  assert raw_permutation(8, 0, 1).tolist() == [5, 3, 7, 2, 4, 1, 0, 6]
  assert TrainOrder(10, 6, 7)(10_000_000).tolist() == [2, 9, 8, 0, 5, 1]


def test_batch_size_and_number_of_examples_may_be_large():
  batch = TrainOrder(1_281_167, 4096, 0)(10_000_000)
  assert batch.shape == (4096,) and 0 <= batch.min() and batch.max() < 1_281_167
  assert len(set(batch.tolist())) == 4096


@pytest.mark.parametrize('n, batch_size, repeats', [(10, 6, 3), (9, 8, 3), (50, 4, 4), (5, 7, 2)])
def test_repeats_are_far_apart_in_a_batch_and_epochs_continue(n, batch_size, repeats):
  order, pictures = TrainOrder(n, batch_size, 1, repeats), -(-batch_size // repeats)
  plain = TrainOrder(n, pictures, 1)
  for step in range(5):
    batch = order(step)
    np.testing.assert_array_equal(batch[:pictures], plain(step))
    np.testing.assert_array_equal(batch, [batch[row % pictures] for row in range(batch_size)])
    assert pictures == 1 or n < batch_size or (batch != np.roll(batch, -1))[:-1].all()
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(order))(3), order(3))


@pytest.mark.parametrize('n', [0, 1, 5, 8, 9, 100])
@pytest.mark.parametrize('batch_size', [1, 4, 9, 128])
def test_evaluation_counts_each_example_once(n, batch_size):
  order = EvalOrder(n, batch_size)
  batches = [order(step) for step in range(order.num_steps)]
  assert all(len(batch) == batch_size for batch in batches)
  places = np.concatenate(batches) if batches else np.array([], int)
  assert places[places >= 0].tolist() == list(range(n))
  assert len(places) - n < batch_size
