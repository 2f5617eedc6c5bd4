"""Roofline model: the least time of a step, if its limiting resource is busy all the time (Williams et al. 2009)."""

import dataclasses

from vit_jax.cost.hardware import Chip
from vit_jax.rehearsal.estimate import Work


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds per step of each resource if it were the only one. Estimates, not measurements on a chip."""
  compute: float  # matmul FLOPs at the peak rate of bfloat16
  hbm: float
  interconnect: float  # within slices or between them, whichever takes longer

  @property
  def floor(self) -> float:
    return max(dataclasses.astuple(self))

  @property
  def limit(self) -> str:
    """Which of the three sets the floor."""
    return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def times(chip: Chip, work: Work) -> Times:
  """The three times of a device's work. A network of unknown bandwidth counts as infinitely fast."""
  within = work.within_bytes / chip.send_bandwidth
  between = work.between_bytes / chip.network_bandwidth if chip.network_bandwidth else 0.0
  compute, hbm = work.flops / chip.peak_flops, work.hbm_bytes / chip.hbm_bandwidth
  return Times(*(chip.devices * seconds for seconds in (compute, hbm, max(within, between))))
