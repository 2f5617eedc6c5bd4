"""A pytest plug-in: workers of pytest-xdist write what they have covered; they end without the usual clean-up."""

import coverage


def pytest_unconfigure():
  """Called as a worker ends."""
  if (measured := coverage.Coverage.current()) is not None:
    measured.save()
