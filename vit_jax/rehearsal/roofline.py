"""How long a step takes at least, were each part of a chip busy all the time (Williams et al. 2009)."""

import dataclasses

from vit_jax.cost.hardware import Chip
from vit_jax.rehearsal.estimate import Work


@dataclasses.dataclass(frozen=True)
class Times:
  """Seconds a step, were nothing else to wait for. Estimates: none has been measured on a chip."""
  compute: float  # matmul FLOPs at the peak of bfloat16
  hbm: float
  interconnect: float  # within slices and between them, whichever takes longer

  @property
  def floor(self) -> float:
    return max(dataclasses.astuple(self))

  @property
  def limit(self) -> str:
    """Which of the three sets the floor."""
    return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def times(chip: Chip, work: Work) -> Times:
  """The three times of what one device does. A network whose bandwidth is not known counts as infinitely fast."""
  within = work.within_bytes / chip.send_bandwidth
  between = work.between_bytes / chip.network_bandwidth if chip.network_bandwidth else 0.0
  compute, hbm = work.flops / chip.peak_flops, work.hbm_bytes / chip.hbm_bandwidth
  return Times(*(chip.devices * seconds for seconds in (compute, hbm, max(within, between))))
