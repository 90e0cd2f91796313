"""Everything a service does, mixed at random for minutes: every answer to the bit.

    python -m tests.soak --seconds 600 --seed 1

Some threads share some models. Each draws, again and again, one of: a run with one of
many shapes, a run into arrays of its own, a run watched layer by layer, a run with a
deadline too short, other outputs, a model loaded, used and closed, a fork whose child
does the same on all its threads. Every answer is compared bit by bit with one computed
beforehand by one thread; memory is sampled all the while. The last line is a summary;
the exit status is 1 if any answer was wrong, a child failed, or memory grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import striate
from striate import DeadlineError, Model

sys.path.insert(0, str(Path(__file__).parent))

from small_nets import any_size, picture, wide

CHILD_SECONDS = 60
"""A child still alive after this hangs."""

GROWTH = 1.10
"""How much larger the process may be in the last quarter than in the second."""


@dataclass
class Case:
    """A model, an input and the bits of its answer.

    Parameters
    ----------
    model : Model
        Shared by all threads.
    x, wanted : Array
        An input and the answer.
    layer, middle : str and Array
        A layer inside, and its value.
    """

    model: Model
    x: np.ndarray
    wanted: np.ndarray
    layer: str
    middle: np.ndarray


@dataclass
class Soak:
    """What the threads share: cases, a stop sign, counts and complaints."""

    cases: list[Case]
    path: str
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    forking: threading.Lock = field(default_factory=threading.Lock)

    def same(self, what: str, found: np.ndarray, wanted: np.ndarray) -> None:
        """Note whether an answer has the bits it must have."""
        self.counts[what] += 1
        if found.tobytes() != wanted.tobytes():
            self.wrong.append(f"{what}: {found.shape} has other bits")


def cases(path: str, threads: int, shapes: int) -> list[Case]:
    """Return inputs for two models, with answers of models that use one thread."""
    found = []
    rng = random.Random(7)
    graph = any_size()
    striate.save(graph, path)
    shared, alone = striate.load(path, threads=threads), Model(graph, threads=1)
    for seed in range(shapes):
        shape = (rng.choice([1, 1, 2, 3]), rng.randint(8, 72), rng.randint(8, 72), 3)
        x = picture(seed, *shape)
        y = alone.run({"image": x}, ["winograd", "odds"])
        found.append(Case(shared, x, y["odds"], "winograd", y["winograd"]))
    graph = wide(48, 4)
    shared, alone = Model(graph, threads=threads), Model(graph, threads=1)
    for seed in range(2):
        x = picture(seed, 1 + seed, 24, 24, 48)
        y = alone.run({"x": x}, ["conv2", graph.outputs[0]])
        found.append(Case(shared, x, y[graph.outputs[0]], "conv2", y["conv2"]))
    return found


def call(soak: Soak, case: Case, rng: random.Random) -> None:
    soak.same("call", case.model(case.x), case.wanted)


def into(soak: Soak, case: Case, rng: random.Random) -> None:
    out = np.full_like(case.wanted, np.nan)
    case.model(case.x, out=out)
    soak.same("into", out, case.wanted)


def watched(soak: Soak, case: Case, rng: random.Random) -> None:
    seen: list[str] = []
    found = case.model(
        case.x, check_finite=True, hook=lambda name, value: seen.append(name)
    )
    soak.same("watched", found, case.wanted)
    if case.model.graph.outputs[0] not in seen:
        soak.wrong.append(f"watched: saw only {seen}")


def hurried(soak: Soak, case: Case, rng: random.Random) -> None:
    try:
        found = case.model(case.x, timeout=rng.choice([1e-9, 1e-4, 1e-3, 10.0]))
    except DeadlineError:
        soak.counts["out of time"] += 1
    else:
        soak.same("in time", found, case.wanted)


def inside(soak: Soak, case: Case, rng: random.Random) -> None:
    name = case.model.inputs[0].name
    found = case.model.run({name: case.x}, [case.layer])
    soak.same("inside", found[case.layer], case.middle)


def loaded(soak: Soak, case: Case, rng: random.Random) -> None:
    small = next(c for c in soak.cases if c.model is soak.cases[0].model)
    with striate.load(soak.path, threads=rng.choice([1, 2, 3])) as model:
        soak.same("load", model(small.x), small.wanted)


def forked(soak: Soak, case: Case, rng: random.Random) -> None:
    """Fork while the others run; the child runs cases on all its threads."""
    with soak.forking, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            some = [*rng.sample(soak.cases, min(4, len(soak.cases))), case]
            os._exit(0 if all(right(c) for c in some) else 1)
    end = time.monotonic() + CHILD_SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            soak.wrong.append("fork: the child hangs")
            return
        time.sleep(0.005)
    soak.counts["fork"] += 1
    code = os.waitstatus_to_exitcode(status)
    if code:
        soak.wrong.append(f"fork: the child ended with {code}")


def right(case: Case) -> bool:
    """Return whether a case has the bits it must have, in a forked child."""
    try:
        return bool(case.model(case.x).tobytes() == case.wanted.tobytes())
    except BaseException:
        traceback.print_exc()
        return False


DEEDS = {call: 60, into: 8, watched: 6, hurried: 8, inside: 8, loaded: 5, forked: 1}
"""What threads do, and how often."""


def worker(soak: Soak, seed: int) -> None:
    """Draw deeds until the time is over."""
    rng = random.Random(seed)
    deeds, weights = list(DEEDS), list(DEEDS.values())
    while not soak.stop.is_set():
        (deed,) = rng.choices(deeds, weights)
        try:
            deed(soak, rng.choice(soak.cases), rng)
        except BaseException as error:
            soak.wrong.append(f"{deed.__name__}: {error!r}")
            traceback.print_exc()


def resident() -> int:
    """Return the bytes of memory the process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soaked(
    seconds: float, seed: int, workers: int = 8, threads: int = 2, shapes: int = 30
) -> dict[str, object]:
    """Soak for some seconds and return what was done and found."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "net.h5")
        soak = Soak(cases(path, threads, shapes), path)
        pool = [
            threading.Thread(target=worker, args=(soak, seed * 1000 + i))
            for i in range(workers)
        ]
        sizes: list[int] = []
        for thread in pool:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not soak.wrong:
            time.sleep(min(0.5, seconds / 40))
            sizes.append(resident())
        soak.stop.set()
        for thread in pool:
            thread.join()
    quarter = max(1, len(sizes) // 4)
    before, after = max(sizes[quarter : 2 * quarter], default=0), max(sizes[-quarter:])
    if before and after > GROWTH * before:
        soak.wrong.append(f"memory grew from {before} to {after} bytes")
    return {
        "seconds": seconds,
        "seed": seed,
        "workers": workers,
        "deeds": dict(sorted(soak.counts.items())),
        "wrong": soak.wrong,
        "resident_second_quarter": before,
        "resident_last_quarter": after,
    }


def main() -> int:
    """Soak as the command line says and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=8, help="threads that call")
    parser.add_argument("--threads", type=int, default=2, help="threads of a model")
    options = parser.parse_args()
    found = soaked(options.seconds, options.seed, options.workers, options.threads)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
