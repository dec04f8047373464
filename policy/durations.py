"""How long pods of one template run, from their history. Owned by one thread; others may read.

A run counts in seconds of the reference core: its time on a node, times the speed of that node. The expected duration
is the median of the latest runs, so a run that hung or ended early says little. A template whose work changes is found
by `CHANGE_RUNS` runs in a row that all deviate to the same side; its older runs are forgotten.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, OrderedDict
from statistics import median
from typing import Final, NamedTuple

from policy.errors import InvalidInputError

KEPT_RUNS: Final = 16
"""Latest runs kept per template."""

PRIOR_SPREAD: Final = 0.3
PRIOR_RUNS: Final = 4
"""Standard deviation of log duration before any run is seen, and how many runs that belief is worth. Assumption."""

CHANGE_SPREADS: Final = 2.5
CHANGE_RUNS: Final = 4
"""A template changed where so many runs in a row are further than so many standard deviations from its median."""

MAD_TO_DEVIATION: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class ExpectedDuration(NamedTuple):
    """What the history of a template says.

    Attributes:
        seconds: median of its runs, on the reference core.
        spread: standard deviation of the logarithm of one run.
        runs: how many runs that rests on, at most `KEPT_RUNS`.
    """

    seconds: float
    spread: float
    runs: int


class _History:
    """Latest runs of one template: logarithms of seconds, and when each ended."""

    __slots__ = ("at", "expected", "logs", "middle", "side")

    def __init__(self) -> None:
        self.logs = array("d")
        self.at = array("d")
        self.side = 0
        """How many of the latest runs deviate to the same side; negative: they were shorter."""
        self.middle = 0.0
        self.expected: ExpectedDuration | None = None

    def add(self, log_s: float, at: float, memory_s: float) -> bool:
        """Add a run; returns whether it shows that the template changed."""
        known = self.expected
        if known is not None and known.runs >= CHANGE_RUNS:
            deviation = (log_s - self.middle) / known.spread
            side = int(deviation > CHANGE_SPREADS) - int(deviation < -CHANGE_SPREADS)
            self.side = self.side + side if self.side * side > 0 else side
        changed = abs(self.side) >= CHANGE_RUNS
        self.logs.append(log_s)
        self.at.append(at)
        kept = CHANGE_RUNS if changed else KEPT_RUNS
        first = max(0, len(self.logs) - kept)
        while first < len(self.logs) - 1 and at - self.at[first] > memory_s:
            first += 1
        del self.logs[:first], self.at[:first]
        if changed:
            self.side = 0
        self._expect()
        return changed

    def _expect(self) -> None:
        count = len(self.logs)
        self.middle = median(self.logs)
        deviation = MAD_TO_DEVIATION * median(abs(each - self.middle) for each in self.logs)
        variance = (PRIOR_RUNS * PRIOR_SPREAD**2 + count * deviation**2) / (PRIOR_RUNS + count)
        self.expected = ExpectedDuration(math.exp(self.middle), math.sqrt(variance), count)


class TemplateDurations:
    """Expected durations by template, in bounded memory.

    Args:
        memory_s: seconds after which a run is forgotten, once a newer one of its template is known.
        templates: most templates; the one that ran longest ago gives way.

    Attributes:
        counts: runs by what became of them: `kept`, `invalid`; and `changed`, the changes of templates found.
    """

    def __init__(self, memory_s: float = 30 * 86400.0, templates: int = 8192) -> None:
        if not memory_s > 0.0 or templates < 1:
            raise InvalidInputError(f"memory_s is {memory_s} and templates {templates}; give positive numbers")
        self._memory_s = memory_s
        self._most = templates
        self._histories: OrderedDict[str, _History] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many templates are known."""
        return len(self._histories)

    def completed(self, template: str, run_s: float, speed: float, at: float) -> bool:
        """Take one run that ended well.

        Args:
            template: what names the pod's kind.
            run_s: time from start to end, seconds.
            speed: of the node, relative to the reference core.
            at: when it ended, monotonic seconds.

        Returns:
            Whether it is kept: times and speed must be finite, time and speed positive.
        """
        work_s = run_s * speed
        if not (0.0 < run_s < math.inf and 0.0 < speed < math.inf and 0.0 < work_s < math.inf and math.isfinite(at)):
            self.counts["invalid"] += 1
            return False
        history = self._histories.get(template)
        if history is None:
            if len(self._histories) >= self._most:
                self._histories.popitem(last=False)
            history = self._histories[template] = _History()
        else:
            self._histories.move_to_end(template)
        self.counts["kept"] += 1
        self.counts["changed"] += history.add(math.log(work_s), at, self._memory_s)
        return True

    def expected_s(self, template: str) -> ExpectedDuration | None:
        """Return the expected duration of a template on the reference core; None where no run of it is known."""
        history = self._histories.get(template)
        return None if history is None else history.expected
