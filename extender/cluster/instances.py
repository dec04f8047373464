"""Published speeds of instance types: CoreMark per vCPU, as the provider measured it.

Every row of `instances.csv` names the size it was read from, its CPU, its source and the date of the source. A provider
that publishes no figures (AWS) has no rows: the speed of its instances is learned, or labelled. CoreMark is integer
work out of the cache, run on all vCPUs at once, so it is a guide and is believed within `policy.speeds.TABLE_SPREAD`.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

REFERENCE_COREMARK: Final = 17_321.0
"""CoreMark per vCPU of the reference core: a vCPU of n2-standard-8 on Ice Lake."""

SOURCES: Final = {
    "gce": "Google Cloud, CoreMark scores of VM instances by family (cloud.google.com/compute/docs)",
    "azure": "Microsoft, Compute benchmark scores for Azure Linux VMs (learn.microsoft.com/azure/virtual-machines)",
}
"""Where each row's figure is published."""

_FILE: Final = "instances.csv"


@dataclass(frozen=True, slots=True)
class InstanceSpeed:
    """Published speed of one series of instance types."""

    speed: float  # per vCPU relative to the reference core
    read_from: str  # the instance type whose score it is
    cpu: str  # CPU of that score; a provider may run the same type on another one
    source: str  # who published it, in a sentence
    as_of: str


@cache
def _series() -> tuple[tuple[re.Pattern[str], InstanceSpeed], ...]:
    text = files("extender.cluster").joinpath(_FILE).read_text(encoding="utf-8")
    return tuple(
        (
            re.compile(row["pattern"]),
            InstanceSpeed(
                float(row["coremark_per_vcpu"]) / REFERENCE_COREMARK,
                row["read_from"],
                row["cpu"],
                SOURCES[row["source"]],
                row["as_of"],
            ),
        )
        for row in csv.DictReader(text.splitlines())
    )


@lru_cache(maxsize=1024)
def published_speed(instance_type: str) -> InstanceSpeed | None:
    """Return the published speed of an instance type; None where nobody published one.

    Args:
        instance_type: value of the label `node.kubernetes.io/instance-type`.
    """
    for pattern, speed in _series():
        if pattern.fullmatch(instance_type):
            return speed
    return None
