"""Settings every test shares; files beside this one can be imported by name."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "dev", max_examples=50, deadline=None, suppress_health_check=QUIET
)
settings.register_profile(
    "ci", settings.get_profile("dev"), max_examples=40, derandomize=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
