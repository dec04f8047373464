"""One fuzzing process: `python -m tests.fuzz.fuzzer TARGET [libFuzzer's options and folders]`.

Our own modules are imported under instrumentation, so that libFuzzer sees which branches an input takes.
"""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(
    include=[
        "extender.protocol",
        "extender.cluster",
        "extender.pods",
        "extender.requests",
        "extender.demand",
        "extender.quantities",
    ]
):
    from tests.fuzz.targets import one_input


def main() -> None:
    """Fuzz until libFuzzer's options say so; it ends the process."""
    target = sys.argv.pop(1)
    logging.disable(logging.CRITICAL)  # thousands of warnings a second about inputs that are ignored as they should be
    atheris.Setup(sys.argv, lambda data: one_input(target, data), enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
