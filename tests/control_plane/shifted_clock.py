"""`maddpg-extender` with a wall clock that jumps: `python -m tests.control_plane.shifted_clock FILE serve [flags]`.

The file holds the seconds by which the clock is wrong; it is read again ten times a second. `time.time` is replaced
before the service is imported, so that every part of it that asks for the time of day sees the jump, as it would if the
machine's clock were set; `time.monotonic` and timers go on as they do then.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Serve by the shifted clock."""
    file = Path(sys.argv.pop(1))
    true_time, shift = time.time, [0.0]

    def follow() -> None:
        while True:
            text = file.read_text().strip() if file.exists() else ""
            shift[0] = float(text or 0.0)
            time.sleep(0.1)

    time.time = lambda: true_time() + shift[0]
    threading.Thread(target=follow, daemon=True).start()
    from extender.cli import main as serve  # its defaults take `time.time` as they find it

    serve()


if __name__ == "__main__":
    main()
