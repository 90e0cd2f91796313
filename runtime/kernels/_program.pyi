from collections.abc import Callable, Sequence
from typing import Any

ARENA: int
ABSOLUTE: int

class Program:
    arena_bytes: int
    external_bytes: tuple[int, ...]
    written: int
    def __init__(
        self,
        steps: list[tuple[int, bytes, list[tuple[int, int]], bool]],
        arena_bytes: int,
        external_bytes: Sequence[int],
        written: int,
        keep: object,
    ) -> None: ...
    def __len__(self) -> int: ...

class Context:
    program: Program
    def __init__(self, program: Program, poison: bool = False) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def run(
        self,
        arrays: tuple[Any, ...],
        threads: int,
        times: Any = None,
        *,
        timeout: float = ...,
        first: int = 0,
        end: int | None = None,
    ) -> int: ...

class Contexts:
    def __init__(self, program: Program, most: int) -> None: ...
    def __len__(self) -> int: ...
    def take(self, poison: bool) -> Context: ...
    def give(self, context: Context) -> None: ...
    def run(self, arrays: tuple[Any, ...], threads: int, poison: bool) -> None: ...

class Usual:
    def __init__(
        self,
        contexts: Contexts,
        shape: tuple[int, ...],
        array: type,
        empty: Callable[[], Any],
        threads: int,
    ) -> None: ...
    def answer(self, x: Any, poison: bool) -> Any: ...

def give_back_memory() -> None: ...
def workers() -> int: ...
