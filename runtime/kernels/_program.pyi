from collections.abc import Sequence
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
    def run(self, arrays: tuple[Any, ...], threads: int, times: Any = None) -> None: ...

def workers() -> int: ...
