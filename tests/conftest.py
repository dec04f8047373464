"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A property is judged by its answer. Hypothesis' limit of 200 ms per example judges how busy the machine is, and tests
# run in parallel; pytest's own timeout ends what hangs.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
