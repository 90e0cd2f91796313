"""Whether memory is lost when models are loaded, run and closed again and again.

    python -m tests.leaks --cycles 1000

The compiler's leak sanitizer counts the blocks that nothing points to when a process
ends. The interpreter loses some, whatever it runs, so the count of many cycles is
compared with that of a few. Prints one JSON document; the exit status is 1 if many
cycles lose more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

FEW = 2
"""Cycles that do everything once: one model is closed, one dropped."""

CYCLES = """
import ctypes, os, sys, tempfile
here, cycles, spoilt = sys.argv[1:]
sys.path.insert(0, here)
import striate
from small_nets import any_size, picture

malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "net.h5")
    striate.save(any_size(), path)
    inputs = picture(0, 1, 12, 12, 3), picture(0, 2, 16, 12, 3)
    for number in range(int(cycles)):
        model = striate.load(path, threads=2)
        for x in inputs:
            model(x)
            model(x, timeout=60.0, check_finite=True, hook=lambda *_: None)
        if number % 2:
            model.close()
        if spoilt == "True":
            malloc(64)
"""


class NoSanitizerError(Exception):
    """The leak sanitizer is not installed, or may not look at the process."""


def lost(cycles: int, spoilt: bool = False) -> tuple[int, int]:
    """Return the bytes and blocks that a process with so many cycles loses.

    Parameters
    ----------
    cycles : int
        Models loaded, run with two shapes, and closed or dropped by turns.
    spoilt : bool
        Whether every cycle loses a block on purpose.

    Raises
    ------
    NoSanitizerError
        If it cannot be told.
    """
    preload = os.environ.get("LD_PRELOAD", "")
    if "asan" not in preload:
        preload = _library()
    done = subprocess.run(
        [sys.executable, "-c", CYCLES, Path(__file__).parent, str(cycles), str(spoilt)],
        env={
            **os.environ,
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONHASHSEED": "0",
        },
        capture_output=True,
        text=True,
    )
    found = re.search(r"SUMMARY: .*: (\d+) byte.* in (\d+) alloc", done.stderr)
    if found:
        return int(found[1]), int(found[2])
    if "Traceback" in done.stderr:
        raise RuntimeError(done.stderr)
    raise NoSanitizerError(done.stderr[-500:] or "it reports nothing")


def _library() -> str:
    """Return the path of the leak sanitizer."""
    compiler = os.environ.get("CC", "gcc").split()[0]
    try:
        path = subprocess.run(
            [compiler, "-print-file-name=liblsan.so"], capture_output=True, text=True
        ).stdout.strip()
    except OSError as error:
        raise NoSanitizerError(str(error)) from error
    if not Path(path).is_absolute():
        raise NoSanitizerError(f"{compiler} has none")
    return path


def main() -> int:
    """Count as the command line says and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=1000)
    options = parser.parse_args()
    few, many = lost(FEW), lost(options.cycles)
    found = {
        name: {"cycles": cycles, "bytes": nbytes, "blocks": blocks}
        for name, cycles, (nbytes, blocks) in (
            ("few", FEW, few),
            ("many", options.cycles, many),
        )
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if many > few else 0


if __name__ == "__main__":
    sys.exit(main())
