"""Writes the screenshots of the documents: `python -m tests.pages.screenshots [FOLDER]`.

The service, its policy and the pages are real; the cluster is simulated, from a seed. FOLDER is `docs` if left out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from tests.control_plane.toolchain import REPOSITORY
from tests.pages.browser import launcher, page_of
from tests.pages.simulation import Simulated, simulation

VIEW: Final = {"width": 1280, "height": 800}
LARGEST_BYTES: Final = 200_000
PODS: Final = 400
"""Pods placed before the first picture, so that the cluster is as busy as it stays."""


def differing(simulated: Simulated) -> str:
    """UID of a recent decision that kube-default would have made otherwise: what explanations are read for."""
    for decision in simulated.service.app.ledger.latest():
        told = simulated.explained(decision.uid)
        best = told["nodes"][0]["node"] if told["nodes"] else None
        if best is not None and best not in (told["kube_default_choice"] or [best]):
            return decision.uid
    raise RuntimeError("kube-default would have chosen the same nodes for all pods")


def write(folder: Path) -> list[Path]:
    """Write the pictures; returns them.

    Raises:
        RuntimeError: one is larger than the documents should carry.
    """
    written = []
    with simulation(epoch=time.time() - 3600.0) as simulated, launcher() as launch:
        simulated.placed(PODS)
        browser = launch()
        for name, address in (
            ("dashboard", f"decisions/{differing(simulated)}"),
            ("dashboard-nodes", "nodes?size=large&urgency=high"),
        ):
            with page_of(browser, viewport=VIEW, color_scheme="light") as page:
                page.goto(simulated.url + address, wait_until="load")
                path = folder / f"{name}.png"
                page.screenshot(path=path)
                written.append(path)
                if path.stat().st_size > LARGEST_BYTES:
                    raise RuntimeError(f"{path} has {path.stat().st_size} bytes, over {LARGEST_BYTES}")
        browser.close()
    return written


if __name__ == "__main__":
    for picture in write(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs"):
        print(picture, picture.stat().st_size, "bytes")
