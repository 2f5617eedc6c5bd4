"""List prices of TPU chips, for estimates; the price that a project pays can differ."""

DATE = '2026-08'  # of the table

# Dollars per chip-hour on demand, in the cheapest region of the United States: cloud.google.com/tpu/pricing. The prices
# of Spot machines change from month to month and are not in the table.
ON_DEMAND = {'v4': 3.22, 'v5e': 1.20, 'v5p': 4.20, 'v6e': 2.70, 'tpu7x': 12.00}


def of(generation: str, given: float | None = None) -> tuple[float, str]:
  """(dollars per chip-hour, where they are from): a price that was given, or that of the table."""
  if given is not None:
    return given, '--price'
  return ON_DEMAND[generation], f'list price on demand, {DATE}; --price=DOLLARS per chip-hour for yours'
