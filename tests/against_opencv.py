"""A converted network against OpenCV, which reads the same file."""

from __future__ import annotations

from pathlib import Path

from striate import Graph
from striate.tools.oracles.opencv import oracle
from striate.tools.verification import Runtime, compare

TOLERANCE = 1e-5
"""Relative to the largest number; each runtime rounds sums in its own order."""


def agree(graph: Graph, path: Path) -> Graph:
    """Compare every result with OpenCV's, for one picture and for three."""
    verdict = compare(
        graph, Runtime(graph), oracle(path, graph), tolerance=TOLERANCE, inputs=2
    )
    assert verdict.batches == [1, 3]
    assert not verdict.notes
    assert verdict.agrees, verdict
    return graph
