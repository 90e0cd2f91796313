"""Rewrites: a graph in, an equal and cheaper graph out; one rewrite a file."""

from __future__ import annotations

from collections.abc import Callable

from ..graph import Graph
from .drop_identity import drop_identity
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants
from .fold_padding import fold_padding
from .fuse_activation import fuse_activation
from .fuse_residual import fuse_residual

ORDER: tuple[Callable[[Graph], Graph], ...] = (
    fold_constants,
    drop_identity,
    fold_padding,
    fold_batch_norm,
    fuse_residual,
    fuse_activation,
)
"""Every pass, in the order in which they run."""


def optimise(graph: Graph) -> Graph:
    """Return an equal graph after every pass."""
    for rewrite in ORDER:
        graph = rewrite(graph)
    return graph


__all__ = [
    "ORDER",
    "drop_identity",
    "fold_batch_norm",
    "fold_constants",
    "fold_padding",
    "fuse_activation",
    "fuse_residual",
    "optimise",
]
