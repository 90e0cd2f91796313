"""Converters and command lines."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from striate import Graph
from striate.errors import SettingError

if TYPE_CHECKING:
    from striate.tools.formats import Format
    from striate.tools.verification import Verdict

__all__ = ["convert", "verify"]


def convert(
    source: Any,
    *,
    io: str = "channels_last",
    format: str | None = None,
    example: Any = None,
    cut_outputs: Sequence[str] = (),
    cut_inputs: Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
    arch: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Graph:
    """Return the network of another framework.

    Parameters
    ----------
    source : path, torch.nn.Module, torch.export.ExportedProgram or onnx.ModelProto
        A file, recognised by its content whatever its name, or the model itself.
    io : str
        How images go in and come out: ``"channels_last"`` for (N, H, W, C), or
        ``"source"`` for the order the source has, so that callers keep their arrays.
        Inside, everything is channels-last either way.
    format : str, optional
        What the file is, in case that cannot be seen: a name that
        `striate.tools.formats.formats` has.
    example : tensor or tuple of tensors, optional
        What a module of PyTorch is called with, to see what it does.
    cut_outputs, cut_inputs : sequence of str
        Layers or tensors of the source that become the outputs, and the inputs; what
        lies behind, or before, is left out.
    weights : path, optional
        The file of weights where they are apart from the network.
    arch : str, optional
        Which of `striate.models.architectures` a file of weights alone is for.
    progress : callable, optional
        Called with the number of operators done and their number.
    **options
        What else the function for the source's format takes: `nms` for Darknet, say.

    Returns
    -------
    Graph
        Its `provenance` says where it comes from, ``metadata["conversion"]`` what was
        done: nodes in and out, what was folded, which transposes were necessary.

    Raises
    ------
    ModelFormatError
        If the file cannot be recognised, or is not whole.
    UnsupportedModelError
        If the network holds what has no equal; the message is a table of all of it.
    MissingExtraError
        If a package for reading it is not installed; the message says which.
    SettingError
        If a setting makes no sense, or none for this source.
    """
    if io not in ("channels_last", "source"):
        raise SettingError(f"io {io!r}, wanted 'channels_last' or 'source'")
    from striate.tools.conversion import with_outputs
    from striate.tools.formats import resolved

    entry = _format(source, format)
    wishes = {
        "example": example,
        "cut_outputs": tuple(cut_outputs),
        "cut_inputs": tuple(cut_inputs),
        "weights": weights,
        "arch": arch,
        **options,
    }
    given = {
        name: wish
        for name, wish in wishes.items()
        if wish is not None and not (isinstance(wish, tuple) and not wish)
    }
    door = resolved(entry.convert)
    known = _parameters(door)
    after = () if "cut_outputs" in known else given.pop("cut_outputs", ())
    for name in given:
        if name not in known and "**" not in known:
            raise SettingError(f"{name} makes no sense for {entry.title}")
    graph: Graph = door(source, io=io, progress=progress, **given)
    return with_outputs(graph, after, io) if after else graph


def verify(
    graph: Graph,
    source: Any,
    *,
    format: str | None = None,
    inputs: int = 3,
    seed: int = 0,
    tolerance: float | None = None,
    layers: bool | None = None,
    **options: Any,
) -> Verdict:
    """Return how a converted network compares with its source.

    Parameters
    ----------
    graph : Graph
        What `convert` returned.
    source : path or model
        What it was given.
    format : str, optional
        What the source is, as for `convert`.
    inputs, seed, tolerance, layers
        As for `striate.tools.verification.compare`.
    **options
        The other keywords that `convert` was given.

    Returns
    -------
    Verdict
        Its `agrees` is the answer; `outputs` and `steps` have the errors.

    Raises
    ------
    MissingExtraError
        If the source's framework is not installed.
    UnsupportedModelError
        If nothing else can run the source.
    """
    from striate.tools.verification import Runtime, compare, oracle_of

    entry = _format(source, format)
    oracle = oracle_of(entry, source, graph, **options)
    return compare(
        graph,
        Runtime(graph),
        oracle,
        inputs=inputs,
        seed=seed,
        tolerance=tolerance,
        layers=layers,
    )


def _format(source: Any, name: str | None) -> Format:
    from striate.tools import formats

    if name is not None:
        return formats.named(name)
    if isinstance(source, (str, os.PathLike)):
        return formats.recognised(source)
    return formats.named(_format_of(source))


def _format_of(source: Any) -> str:
    """Return the name of the format of a model in memory."""
    kinds = (
        ("torch", "nn.Module", "torch"),
        ("torch", "export.ExportedProgram", "torch"),
        ("onnx", "ModelProto", "onnx"),
    )
    for module, kind, name in kinds:
        found: Any = sys.modules.get(module)
        for part in kind.split("."):
            found = getattr(found, part, None)
        if found is not None and isinstance(source, found):
            return name
    raise SettingError(
        f"cannot convert a {type(source).__name__}; wanted a path or a model of "
        "PyTorch or ONNX"
    )


def _parameters(door: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the settings a format has, ``**`` if it takes any."""
    _, *parameters = inspect.signature(door).parameters.values()
    return frozenset("**" if p.kind is p.VAR_KEYWORD else p.name for p in parameters)
