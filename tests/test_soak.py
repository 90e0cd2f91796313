"""A short soak; ``python -m tests.soak`` is the long one."""

import os

import pytest
from soak import soaked


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_service_at_work_gets_every_bit_right():
    found = soaked(seconds=float(os.environ.get("STRIATE_SOAK_SECONDS", "8")), seed=11)
    assert found["wrong"] == []
    deeds = found["deeds"]
    assert deeds["call"] > 50
    assert {"load", "watched", "inside", "in time", "out of time"} <= set(deeds)
