"""What the command lines share: one-line errors, exit statuses, tables, progress."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import striate
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from striate import Graph
from striate.errors import ModelFormatError, SettingError, StriateError
from striate.spec import Shape
from striate.tools.formats import is_striate, recognised

FAILED = 2
"""The exit status if the command or a file makes no sense."""

FOREIGN = ("not_hdf5", "superblock")
"""Codes with which files that striate did not write are refused."""

PLAIN_WIDTH = 100_000
"""Characters a line where no terminal limits it."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="version", version=striate.__version__)
        self.add_argument("--json", action="store_true", help="print JSON, no tables")

    def error(self, message: str) -> NoReturn:
        """Leave with `message` and where to find more."""
        self.exit(FAILED, f"{self.prog}: {message}; {self.prog} --help tells more\n")

    def add_shape(self) -> None:
        """Add the option that `input_shapes` reads."""
        self.add_argument(
            "--shape",
            action="append",
            default=[],
            metavar="[INPUT=]SIZExSIZE",
            help="the shape of an input with free sizes; may be given again",
        )

    def add_running(self) -> None:
        """Add the options of commands that run a model."""
        self.add_argument(
            "--threads", type=int, help="threads to use (default: all there are)"
        )
        self.add_argument(
            "--isa",
            help="instruction set, of base, avx2, avx512 (default: the best there is)",
        )


def command(
    parser: Parser,
    run: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """Parse, run, turn what goes wrong into one line, and return the exit status."""
    options = parser.parse_intermixed_args(argv)
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (StriateError, OSError, MemoryError) as error:
        text = _told(error)
        complain(parser.prog, text)
        if options.json:
            print_json({"error": text, "status": FAILED})
        return FAILED
    except KeyboardInterrupt:
        complain(parser.prog, "interrupted")
        return 130


def complain(prog: str, text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{prog}: {' '.join(text.split())}\n")


def _told(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}"
    if isinstance(error, ModelFormatError) and error.code in FOREIGN:
        return f"{error}{_framework(error.path)}"
    return str(error)


def _framework(path: str) -> str:
    """Return a hint if a file is no model file but a model of another framework."""
    with suppress(StriateError):
        if not is_striate(path):
            title = recognised(path).title
            return f"; it is {title}: convert_model makes a model file of it"
    return ""


def print_json(value: Any) -> None:
    """Write `value` to standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_lines(lines: Mapping[str, str]) -> None:
    """Write named facts, a line each, the names aligned; empty ones are left out."""
    width = max(map(len, lines), default=0)
    for name, text in lines.items():
        if text:
            _console().print(Text(f"{name:<{width}}  {text}"), soft_wrap=True)


def print_table(
    columns: Mapping[str, str], rows: Iterable[Sequence[str]], total: bool = False
) -> None:
    """Write a table.

    Parameters
    ----------
    columns : dict
        Heading to ``"left"`` or ``"right"``.
    rows : iterable of sequences of str
        A text for each column.
    total : bool
        Whether the last row sums the others up.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, side in columns.items():
        table.add_column(
            heading, justify="right" if side == "right" else "left", overflow="fold"
        )
    rows = list(rows)
    for index, row in enumerate(rows):
        table.add_row(*map(Text, row), end_section=total and index == len(rows) - 2)
    _console().print(table)


def progress(title: str, shown: bool = True) -> Progress:
    """Return a progress bar on standard error, silent where that is no terminal."""
    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
        disable=not (shown and sys.stderr.isatty()),
    )


def grouped(number: int) -> str:
    """Return a number with its digits in groups of three."""
    return f"{number:,}".replace(",", " ")


def size_text(nbytes: float) -> str:
    """Return bytes as people write them."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"


def input_shapes(
    graph: Graph, wishes: Sequence[str], batch: int | None = None
) -> dict[str, Shape]:
    """Return a shape for each input, `Graph.default_shapes` where nothing is wished.

    Parameters
    ----------
    graph : Graph
        The network.
    wishes : sequence of str
        ``1x224x224x3``, or ``image=1x224x224x3`` where there are several inputs.
    batch : int, optional
        The size of the first axis.

    Raises
    ------
    SettingError
        If a wish is not of that form.
    ShapeError
        If it does not fit the network.
    """
    shapes = graph.default_shapes()
    for wish in wishes:
        name, _, sizes = wish.rpartition("=")
        if not name and len(shapes) == 1:
            (name,) = shapes
        if name not in shapes:
            raise SettingError(
                f"shape {wish!r}: wanted INPUT=SIZExSIZE with an input of "
                + ", ".join(shapes)
            )
        try:
            shapes[name] = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            raise SettingError(
                f"shape {wish!r}: wanted whole numbers with x between them"
            ) from None
    if batch is not None:
        if batch < 1:
            raise SettingError(f"batch {batch}: wanted at least 1")
        shapes = {name: (batch, *shape[1:]) for name, shape in shapes.items()}
    graph.specs(shapes)
    return shapes


def _console() -> Console:
    terminal = sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal else PLAIN_WIDTH)
