"""Darknet networks to graphs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from striate import Graph
from striate.errors import SettingError, UnsupportedModelError
from striate.image import Postprocess, Preprocess, Resize
from striate.tools.builder import MOST, computable
from striate.tools.conversion import Conversion, Progress, sha256_of
from striate.tools.from_darknet.config import (
    Section,
    read_config,
    refused,
    settings,
)
from striate.tools.from_darknet.heads import suppressed
from striate.tools.from_darknet.sections import SECTIONS, DarknetBuilder
from striate.tools.from_darknet.weights import WeightStream
from striate.tools.layout import Tensor, last

EPSILON = 1e-6
"""What the first Darknet adds to variances; a later fork adds 1e-5."""

NET_OPTIONS = ("width", "height", "channels", "inputs")
"""Options of the network that matter here."""


def from_darknet(
    cfg: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    io: str = "channels_last",
    epsilon: float = EPSILON,
    nms: float | None = None,
    threshold: float = 0.25,
    cut_outputs: Sequence[str] = (),
    progress: Progress | None = None,
) -> Graph:
    """Return the network of a Darknet configuration and its weights.

    A detector has an output for each of its heads, (N, boxes, 5 + classes), as
    `striate.tools.from_darknet.heads` says.

    Parameters
    ----------
    cfg : path
        The configuration.
    weights : path, optional
        The weights; the configuration's name with ``.weights`` if left out.
    io : str
        ``"channels_last"``: pictures go in and come out as (N, H, W, C).
        ``"source"``: (N, C, H, W), transposed at the boundary.
    epsilon : float
        What batch normalisation adds to variances: 1e-6, or 1e-5 for networks of forks
        that add as much.
    nms : float, optional
        Given, a detector's outputs are ``boxes`` (N, boxes, 4) of all heads, ``scores``
        (N, classes, boxes), and ``detections`` (chosen, 3): picture, class and box of
        those that overlap no better one by more than this part of what both cover.
    threshold : float
        The least score for that.
    cut_outputs : sequence of str
        Sections whose results become the outputs: ``"convolutional_12"`` is the
        thirteenth section after [net]. What lies behind is not converted.
    progress : callable, optional
        Called with (sections done, sections).

    Raises
    ------
    ModelFormatError
        If a file is not what it should be; if bytes of the weights are missing or left
        over, the message says how many there are and should be.
    UnsupportedModelError
        If the network holds what has no equal here; the message is a table of it all.
    SettingError
        If there is no section of the name of a cut.
    """
    path = _existing(Path(cfg))
    beside = path.with_suffix(".weights") if weights is None else Path(weights)
    net, *sections = read_config(path)
    names = [f"{section.kind}_{index}" for index, section in enumerate(sections)]
    kept = _kept(path, names, cut_outputs)
    stream = WeightStream(_existing(beside))
    account = Conversion(path, "darknet", kept, progress, layers="sections")
    size = _net(path, net)
    with account.located():
        g = DarknetBuilder(stream, size[1:], epsilon)
        stored = last(4) if io == "channels_last" else (0, 1, 2, 3)
        x: Tensor | None = g.input("data", ("N", *size), stored)
        account.orders.append(("data", stored))
    for name, section in zip(names[:kept], sections[:kept], strict=True):
        x = _converted(g, account, name, section, x)
        if stream.fault:
            raise refused(stream.path, f"{stream.fault} for {name}", "truncated")
        g.layers.append(x)
    account.require_supported()
    if kept == len(sections):
        stream.require_end()
    with account.located():
        results = _outputs(g, names, cut_outputs, nms, threshold)
        for name, y in results.items():
            axes = stored if y.rank == 4 else tuple(range(y.rank))
            g.site = name
            g.output(y.transpose(axes), name)
            account.orders.append((name, axes))
    graph = account.finish(
        g,
        path.stem,
        source_format=f"weights {stream.version}",
        source_sha256=sha256_of(path),
        weights_sha256=sha256_of(stream.path),
    )
    graph.preprocess = _preprocess(size, detector=bool(g.heads))
    if not g.heads and not cut_outputs:
        done = any(section.kind in ("softmax", "soft") for section in sections[-3:])
        output = graph.outputs[0]
        graph.postprocess = Postprocess(output, "none" if done else "softmax")
    return graph


def _kept(path: Path, names: list[str], cut_outputs: Sequence[str]) -> int:
    """Return how many sections there are up to the last output."""
    unknown = sorted(set(cut_outputs) - set(names))
    if unknown:
        raise SettingError(
            f"{path}: there is no section {unknown[0]!r} to cut at; the last one is "
            f"{names[-1]!r}"
        )
    return max((names.index(name) + 1 for name in cut_outputs), default=len(names))


def _existing(path: Path) -> Path:
    if not path.is_file():
        reason = "found no regular file" if path.exists() else "no such file"
        raise refused(path, reason, "not_a_file")
    return path


def _net(path: Path, section: Section) -> tuple[int, int, int]:
    """Return channels, height and width of the input."""

    def net(
        *, width: int = 0, height: int = 0, channels: int = 3, inputs: int = 0
    ) -> None:
        """Stand for the options that matter."""

    options = {k: v for k, v in section.options.items() if k in NET_OPTIONS}
    try:
        found = settings(Section(section.kind, section.line, options), net, print)
    except UnsupportedModelError as error:
        raise refused(path, f"[net] {error}") from None
    height, width = found.get("height", 0), found.get("width", 0)
    channels = found.get("channels", 3 if height and width else found.get("inputs", 0))
    size = (channels, height or 1, width or 1)
    if min(channels, height + (not width), width + (not height)) < 1:
        raise refused(
            path,
            f"[net] {width}x{height} with {channels} channels, wanted positive sizes",
        )
    if math.prod(size) > MOST // 2:
        raise refused(path, f"[net] {width}x{height}x{channels} is too large", "budget")
    return size


def _converted(
    g: DarknetBuilder,
    account: Conversion,
    name: str,
    section: Section,
    x: Tensor | None,
) -> Tensor | None:
    """Return what a section computes, None if it or what it reads is not supported."""
    function = SECTIONS.find(section.kind)

    def convert() -> Tensor | None:
        if function is None:
            raise UnsupportedModelError("no such section here")
        options = settings(section, function, g.note)
        if x is None:
            return None
        if section.kind != "route" and g.layers:
            g.source(-1)
        y: Tensor | None = function(g, x, **options)
        return None if y is None else computable(y)

    found = account.node(g, section.kind, name, convert, reads=(x,) if x else ())
    return found[0] if found else None


def _outputs(
    g: DarknetBuilder,
    names: Sequence[str],
    cut_outputs: Sequence[str],
    nms: float | None,
    threshold: float,
) -> dict[str, Tensor]:
    """Return the results by name: those of every head, and of the last section."""
    if g.heads and nms is not None:
        g.site = "nms"
        found = suppressed(g, list(g.heads.values()), nms, threshold)
        return dict(zip(("boxes", "scores", "detections"), found, strict=True))
    chosen = [names.index(name) for name in cut_outputs]
    results: dict[str, Tensor] = {}
    for index in chosen or sorted({*g.heads, len(names) - 1}):
        y = g.layers[index]
        assert y is not None
        if y.rank == 4 and all(n == 1 for dim in y.shape[2:] for n in dim):
            y = g.reshape(y, y.shape[:2])
        results[names[index]] = y
    return results


def _preprocess(net: tuple[int, int, int], detector: bool) -> Preprocess | None:
    """Return how Darknet prepares a picture: 0 to 1, RGB; classifiers cut a square."""
    channels, height, width = net
    if channels not in (1, 3) or not max(height, width) < 1 << 16:
        return None
    colour = "RGB" if channels == 3 else "L"
    if detector:
        return Preprocess(colour, resize=Resize("exact", (height, width)))
    edge = Resize("shortest_edge", (max(height, width),))
    return Preprocess(colour, resize=edge, crop=(height, width))
