"""How many threads to use, and what this machine is: read from /proc and /sys.

# Design
A container is not its host. What a process may use is the CPUs it is allowed to run on
and the share of time its control groups grant, whichever is less. Two hardware threads
of one core share its vector units, so by default there is one thread a core. Nothing
here changes anything, and every function takes the root of the file system, so that a
test can hand in another.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import SettingError
from .record import Record, record

ROOT = Path("/")


@record
class Threads(Record):
    """How many threads to use, and why.

    Parameters
    ----------
    count : int
        The default of `striate.Model`.
    cpus : int
        The CPUs the process may run on.
    cores : int
        The physical cores these belong to.
    quota : float or None
        CPUs' worth of time that control groups grant; None if there is no limit.
    wish : int or None
        ``STRIATE_NUM_THREADS``.
    """

    count: int
    cpus: int
    cores: int
    quota: float | None
    wish: int | None

    @property
    def reason(self) -> str:
        """How `count` was decided, in a line."""
        parts = [f"{_counted(self.cpus, 'CPU')} allowed"]
        if self.cores < self.cpus:
            parts.append(f"on {_counted(self.cores, 'core')} (the others are siblings)")
        parts.append(
            "no quota" if self.quota is None else f"quota of {self.quota:g} CPUs"
        )
        if self.wish is not None:
            parts.append(f"STRIATE_NUM_THREADS={self.wish}")
        return ", ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


class Cache(NamedTuple):
    """A data cache of the first CPU: its level, bytes, and how many CPUs share it."""

    level: int
    nbytes: int
    shared_by: int


def default_threads(
    root: Path = ROOT, cpus: Collection[int] | None = None, wish: str | None = None
) -> Threads:
    """Return how many threads a model uses unless it is told.

    The CPUs allowed, the quota rounded up and the wish limit it, whichever is least;
    without a wish so do the physical cores.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    cpus : collection of int, optional
        The CPUs the process may run on; asked of the system if left out.
    wish : str, optional
        ``STRIATE_NUM_THREADS``; taken from the environment if left out.

    Raises
    ------
    SettingError
        If the wish is no number.
    """
    allowed = allowed_cpus() if cpus is None else set(cpus)
    text = os.environ.get("STRIATE_NUM_THREADS", "") if wish is None else wish
    wanted = _wish(text)
    cores = len({siblings(cpu, root) for cpu in allowed})
    quota = cpu_quota(root)
    limits = [cores if wanted is None else min(len(allowed), wanted)]
    if quota is not None:
        limits.append(max(1, math.ceil(quota)))
    return Threads(min(limits), len(allowed), cores, quota, wanted)


def _wish(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not int(text):
        raise SettingError(
            f"STRIATE_NUM_THREADS={text!r}: wanted a whole number, at least 1"
        )
    return int(text)


def allowed_cpus() -> set[int]:
    """Return the CPUs the process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def siblings(cpu: int, root: Path = ROOT) -> frozenset[int]:
    """Return the CPUs that are hardware threads of the same core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):
        found = numbers(_text(topology / name))
        if found:
            return frozenset(found)
    return frozenset({cpu})


def numbers(text: str) -> set[int]:
    """Return the numbers of a list as the kernel writes it, such as ``0-3,8``."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), int(last or first) + 1))
    return found


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many CPUs' worth of time control groups grant, None for no limit.

    Every group from the process's own up to the root of what is mounted may have a
    limit; the least counts. Both versions of control groups are understood.
    """
    limits = [limit for folder in _groups(root) if (limit := _limit(folder))]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """Return the limit of one control group."""
    words = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the process's control groups that may limit its time."""
    mounts = _mounts(root)
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kind = "cgroup2" if number == "0" and not controllers else "cgroup"
        if kind == "cgroup" and "cpu" not in controllers.split(","):
            continue
        for place, above in mounts.get(kind, []):
            inside = path
            if above != "/" and (path == above or path.startswith(above + "/")):
                inside = path[len(above) :]
            folder = root / place.strip("/")
            yield folder
            for name in inside.strip("/").split("/"):
                if name in {"", ".."}:
                    break
                folder = folder / name
                yield folder


def _mounts(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Return (mount point, root within the hierarchy) of what can limit CPU time."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" or (
            kind[0] == "cgroup" and "cpu" in kind[2].split(",")
        ):
            found.setdefault(kind[0], []).append((fields[4], fields[3]))
    return found


def caches(root: Path = ROOT) -> list[Cache]:
    """Return the data caches of the first CPU, the smallest level first."""
    found = []
    units = {"K": 1 << 10, "M": 1 << 20, "": 1}
    for folder in sorted(root.glob("sys/devices/system/cpu/cpu0/cache/index*")):
        size = re.fullmatch(r"(\d+)([KM]?)", _text(folder / "size").strip())
        level = _text(folder / "level").strip()
        if size and level and _text(folder / "type").strip() != "Instruction":
            nbytes = int(size[1]) * units[size[2]]
            shared = len(numbers(_text(folder / "shared_cpu_list"))) or 1
            found.append(Cache(int(level), nbytes, shared))
    return sorted(found, key=lambda cache: cache.level)


def cpu_name(root: Path = ROOT) -> str:
    """Return what the CPU calls itself; empty if it does not say."""
    found = re.search(r"(?m)^model name\s*:\s*(.*)$", _text(root / "proc/cpuinfo"))
    return found[1].strip() if found else ""


def _text(path: Path) -> str:
    """Return the text of a small file, empty if there is none."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
