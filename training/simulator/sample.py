"""The sample trace of our own making: `maddpg-train sample-trace` prints it. Nothing in it was measured.

Shaped as openb is: two big classes, sizes in a few steps, log-normal durations with a long tail, arrivals in clumps.
"""

from __future__ import annotations

from typing import Final, TextIO

import numpy as np

PODS: Final = 1000
SEED: Final = 2023
CLASSES: Final = {"LS": 0.55, "BE": 0.4, "Burstable": 0.04, "Guaranteed": 0.01}
CPU_STEPS: Final = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
CPU_WEIGHTS: Final = (0.08, 0.12, 0.2, 0.15, 0.2, 0.15, 0.07, 0.03)
MEMORY_A_CORE: Final = (1.0, 2.0, 4.0)
MEDIAN_DURATION: Final = 540.0
DURATION_SIGMA: Final = 1.5
CLUMP: Final = 4.0
"""Mean pods of a clump: jobs come with several pods at about the same time."""


def write(file: TextIO) -> None:
    """Write the sample trace as CSV; the same bytes each time."""
    generator = np.random.default_rng(SEED)
    file.write("arrival,class,cpu,memory,duration\n")
    now = 0.0
    for _ in range(PODS):
        now += generator.exponential(600.0 * CLUMP) if generator.random() < 1.0 / CLUMP else generator.exponential(2.0)
        name = generator.choice(list(CLASSES), p=list(CLASSES.values()))
        cpu = generator.choice(CPU_STEPS, p=CPU_WEIGHTS)
        memory = cpu * generator.choice(MEMORY_A_CORE)
        duration = MEDIAN_DURATION * np.exp(DURATION_SIGMA * generator.standard_normal())
        file.write(f"{now:.0f},{name},{cpu:g},{memory:g},{duration:.0f}\n")
