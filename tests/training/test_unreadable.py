"""A picture that cannot be read is one picture, in however many epochs it is met."""

import types

from vit_jax.training.loop import Loop


def test_a_broken_picture_is_reported_once():
  events, loop = [], object.__new__(Loop)
  loop._reported = set()
  loop._in_flight = types.SimpleNamespace(record_event=lambda event, text: events.append((event['what'], text)))
  for epoch in range(20):
    loop._report(['cats/1.png: truncated', 'cats/1.png: truncated'], 30 * epoch)
  loop._report(['dogs/2.png: truncated'], 700)
  assert [what for what, _ in events] == ['cats/1.png: truncated', 'dogs/2.png: truncated']
  assert events[0][1] == 'skipped (weight 0): cats/1.png: truncated'
