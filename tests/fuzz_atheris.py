"""Fuzz the reader of model files, led by the code that mutants reach.

``python -m tests.fuzz_atheris -max_total_time=600 folder``, with atheris installed; the
options are libFuzzer's. The golden files are the first inputs, what reaches new code is
kept in the folder. Mutants of good files are those of `fuzz_model_file`, whose checks
are made of each; others are libFuzzer's own.
"""

import random
import sys

import atheris

with atheris.instrument_imports(include=["striate.hdf5_reader", "striate.graph_json"]):
    import striate.graph_json
    import striate.hdf5_reader  # noqa: F401

from striate import ModelFormatError

from tests.fuzz_model_file import GOLDEN, MUTATORS, Base, Tally, bases, examine

ORIGINALS = bases()
TALLY = Tally()


def mutant(data, most, seed):
    """Return another input made of one."""
    generator = random.Random(seed)
    if generator.random() < 0.2:
        return atheris.Mutate(data, most)
    mutator = generator.choice(MUTATORS)
    try:
        changed = mutator(Base(data), ORIGINALS, generator)
    except (ModelFormatError, ValueError, LookupError):
        changed = mutator(generator.choice(ORIGINALS), ORIGINALS, generator)
    return (changed or data)[:most]


def check(data):
    """Raise an error if reading an input goes wrong."""
    problem = examine(data, "any", TALLY)
    if problem:
        raise AssertionError(problem)


def main():
    """Fuzz until libFuzzer's options say it is enough."""
    if len(sys.argv) < 2 or sys.argv[-1].startswith("-"):
        sys.exit("name a folder, last, for inputs that reach new code")
    arguments = [*sys.argv, str(GOLDEN), "-max_len=70000", "-timeout=10"]
    atheris.Setup(arguments, check, custom_mutator=mutant)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
