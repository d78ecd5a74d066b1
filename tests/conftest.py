"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Times say how busy the machine is, and nothing about what is tested. The same examples are tried each time, so that
# what fails fails again, here and elsewhere; with SEARCH=1 others are looked for.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="SEARCH" not in os.environ,
)
settings.load_profile("any machine")
