"""A short soak; ``python -m tests.soak`` is the long one."""

import os

import pytest
from soak import soaked

SECONDS = "60" if os.environ.get("CI") else "8"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_service_at_work_gets_every_bit_right():
    seconds = float(os.environ.get("STRIATE_SOAK_SECONDS", SECONDS))
    found = soaked(seconds, seed=11)
    assert found["wrong"] == []
    deeds = found["deeds"]
    assert deeds["call"] > 50
    assert {"load", "watched", "inside", "in time", "out of time"} <= set(deeds)
