"""runc without CAP_SYS_RESOURCE: a wrapper for machines whose bounding set lacks it, where every container would fail.

What needs it goes too: negative oom scores and raised limits. The engine runs this file as `runc`.
"""

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

CAPABILITY, BIT = "CAP_SYS_RESOURCE", 24
REAL = "/usr/sbin/runc"


def lacking(status: str) -> bool:
    """Whether a process with this /proc/PID/status could never have the capability."""
    (bounding,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:"))
    return not int(bounding, 16) >> BIT & 1


def within_bounds(process: dict[str, Any]) -> dict[str, Any]:
    """The `process` of an OCI specification without what needs the capability."""
    kept = {name: value for name, value in process.items() if name != "rlimits"}
    if "capabilities" in kept:
        kept["capabilities"] = {
            kind: [each for each in names if each != CAPABILITY] for kind, names in kept["capabilities"].items()
        }
    if (kept.get("oomScoreAdj") or 0) < 0:
        del kept["oomScoreAdj"]
    return kept


def rewrite(arguments: list[str]) -> None:
    """Change the specification that these arguments of runc lead to, if they lead to one."""
    for option, value in itertools.pairwise(arguments):
        if option in {"--bundle", "-b"}:
            path = Path(value, "config.json")
            specification = json.loads(path.read_text())
            path.write_text(json.dumps(specification | {"process": within_bounds(specification["process"])}))
        elif option in {"--process", "-p"}:
            path = Path(value)
            path.write_text(json.dumps(within_bounds(json.loads(path.read_text()))))


if __name__ == "__main__":
    if {"create", "run", "exec"} & set(sys.argv):
        rewrite(sys.argv[1:])
    os.execv(REAL, ["runc", *sys.argv[1:]])  # noqa: S606 - that is what a wrapper is for
