"""The thread team in C, under the sanitizers of the compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = os.environ.get("CC", "gcc").split()[0]


def built(folder, sanitizer, *flags):
    """Return the program of ``team.c`` built with a sanitizer; skip if it cannot be."""
    program = folder / "team"
    command = [COMPILER, "-O1", "-g", f"-fsanitize={sanitizer}", *flags]
    command += [f"-I{HERE.parent / 'pyx'}", str(HERE / "team.c"), "-o", str(program)]
    done = subprocess.run([*command, "-lpthread"], capture_output=True, text=True)
    if done.returncode:
        if "tsan" in done.stderr or "asan" in done.stderr or "ubsan" in done.stderr:
            pytest.skip(f"{COMPILER} has no {sanitizer} sanitizer here")
        raise AssertionError(done.stderr)
    return program


def run(program):
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    environment["TSAN_OPTIONS"] = "die_after_fork=0:halt_on_error=1"
    return subprocess.run(
        [program], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no compiler")
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_the_team_has_no_race_and_no_stray_access(tmp_path, sanitizer):
    done = run(built(tmp_path, sanitizer))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 wrong, child 0\n"


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="there is no compiler")
def test_a_race_would_be_found(tmp_path):
    """Without the order of steps the sanitizer complains, so it does look."""
    done = run(built(tmp_path, "thread", "-DWITHOUT_ORDER"))
    assert done.returncode != 0
    assert "data race" in done.stderr
