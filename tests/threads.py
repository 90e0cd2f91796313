"""Many threads, one model: bits, throughput, and the pace of the other threads.

    python -m tests.threads
    python -m tests.threads --calls 100000 --workers 8

Prints one JSON document; the exit status is 1 if an answer had wrong bits.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from striate import Model
from striate.machine import allowed_cpus

sys.path.insert(0, str(Path(__file__).parent))

from small_nets import any_size, picture, wide


def together(jobs: list[Callable[[], object]]) -> float:
    """Run each job in a thread of its own; return the seconds until all are done."""
    threads = [threading.Thread(target=job) for job in jobs]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def hammered(workers: int, calls: int, seed: int, threads: int = 1) -> int:
    """Call one model from many threads with mixed shapes; return the wrong answers."""
    rng = random.Random(seed)
    model, alone = Model(any_size(), threads=threads), Model(any_size(), threads=1)
    inputs = [
        picture(i, rng.choice([1, 2]), rng.randint(4, 24), rng.randint(4, 24), 3)
        for i in range(12)
    ]
    wanted = [alone(x).tobytes() for x in inputs]
    wrong: list[int] = []

    def work(draw: random.Random) -> None:
        for _ in range(calls):
            index = draw.randrange(len(inputs))
            if model(inputs[index]).tobytes() != wanted[index]:
                wrong.append(index)

    together([lambda i=i: work(random.Random(seed + i)) for i in range(workers)])
    return len(wrong)


def speedup(callers: int, calls: int = 200) -> float:
    """Return how many times the calls of one thread several threads do in its time."""
    model = Model(wide(64, 4), threads=1)
    x = picture(0, 1, 24, 24, 64)

    def work() -> None:
        for _ in range(calls):
            model(x)

    work()
    alone = together([work])
    return callers * alone / together([work] * callers)


def queued() -> float:
    """Return how long this thread has waited for a CPU, in seconds."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def pace(seconds: float = 0.4) -> float:
    """Return the pace of a counting thread beside a run, relative to that alone.

    Time in the system's queue for a CPU is taken off: that is the load of the machine.
    A thread that waits for the interpreter's lock is not in that queue.
    """
    model = Model(wide(64, 6), threads=1)
    x = picture(0, 40, 24, 24, 64)
    model(x)
    stop = threading.Event()

    def counted() -> float:
        count, end = 0, time.thread_time() + seconds
        start = time.perf_counter() - queued()
        while time.thread_time() < end:
            count += 1
        return count / (time.perf_counter() - queued() - start)

    def run() -> None:
        while not stop.is_set():
            model(x)

    alone = counted()
    runner = threading.Thread(target=run)
    runner.start()
    time.sleep(0.02)
    beside = counted()
    stop.set()
    runner.join()
    return beside / alone


def main() -> int:
    """Measure as the command line says and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--calls", type=int, default=100_000, help="of each worker")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cpus = len(allowed_cpus())
    found = {
        "speedup": {
            n: float(np.max([speedup(n) for _ in range(5)])) for n in range(1, cpus + 1)
        },
        "pace": float(np.max([pace() for _ in range(5)])),
        "calls": options.workers * options.calls,
        "wrong": hammered(options.workers, options.calls, options.seed),
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
