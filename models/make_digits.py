"""Train the reader of handwritten digits and write ``digits.h5``.

Run ``python -m striate.models.make_digits digits.h5``; it needs PyTorch and
scikit-learn and takes two to four minutes on one core.

# Design

The pictures are scikit-learn's `load_digits`: 32 x 32 bitmaps, each 4 x 4 block
counted, so 8 x 8 numbers from 0 to 16. Nobody who draws a digit draws it so, hence
the preprocessing in the file, which makes that form from any drawing, and hence two
kinds of training pictures: those of the data set, turned, slanted, stretched and with
strokes of other widths; and digits drawn here from skeletons of strokes, because the
data set lacks ways of writing that are common elsewhere (a 1 with a base line, a
4 that is closed at the top, a 7 without a bar).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from striate import Graph, Ink, Postprocess, Preprocess, Resize, ops, save

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

HELD_OUT = 5
"""One picture in so many of each class is kept for the test."""

SKELETONS = (
    (
        "5,0 2,1 0,5 2,9 5,10 8,9 10,5 8,1 5,0",
        "5,0 1,3 1,7 5,10 9,7 9,3 5,0",
        "7,0 3,1 0,6 3,10 7,9 10,4 8,0 4,1",
    ),
    (
        "5,0 5,10",
        "5,0 5,10",
        "3,3 5,0 5,10",
        "3,2 5,0 5,10",
        "4,1 5,0 5,10",
        "0,4 5,0 5,10",
        "1,3 5,0 5,10",
        "3,3 5,0 5,10|2,10 8,10",
        "2,2 5,0 5,10|1,10 9,10",
        "3,1 5,0 5,10|3,10 7,10",
    ),
    (
        "0,3 2,0 7,0 9,3 6,6 0,10 0,10 10,10",
        "1,2 4,0 8,1 8,4 3,8 1,10 1,9 4,9 7,10 10,9",
        "0,1 6,0 9,2 7,5 1,10 1,10 9,10",
        "1,2 4,0 8,2 6,6 1,10 1,10 5,9 10,10",
        "1,3 3,0 8,1 8,4 4,7 0,9 2,10 3,8 6,9 10,9",
        "0,0 9,0 9,5 0,5 0,10 9,10",
        "1,1 6,0 8,3 2,9 2,9 10,8",
    ),
    (
        "1,2 0,1 5,0 9,2 7,4 4,5 4,5 8,6 10,8 6,10 1,9 0,8 1,7",
        "0,3 2,0 7,0 9,2 8,4 4,5 4,5 9,6 10,8 7,10 2,10 0,7",
        "0,1 5,0 9,2 7,4 3,5 3,5 8,6 10,8 6,10 0,9",
        "1,0 1,0 9,0 9,0 4,4 4,4 9,6 9,9 4,10 0,9",
        "1,2 4,0 8,2 4,5 4,5 9,7 5,10 1,8",
        "0,1 6,0 8,3 4,5 4,5 8,5 9,8 5,10 0,10",
        "1,2 5,0 9,2 5,5 5,5 9,8 5,10 0,8",
        "0,0 9,0 9,5 2,5|9,5 9,10 0,10",
        "1,1 8,0 8,0 4,4 4,4 9,5 9,8 6,10 1,10",
    ),
    (
        "6,0 6,0 0,7 0,7 10,7|7,3 7,10",
        "1,0 0,6 0,6 10,6|8,0 8,10",
        "7,10 7,10 7,0 7,0 0,7 0,7 10,7",
        "2,0 1,5 4,6 8,5|8,0 8,5 7,10",
        "3,0 3,0 0,6 0,6 9,6|7,3 6,10",
        "8,10 8,10 8,0 8,0 0,7 0,7 10,7",
        "1,1 1,5 5,6 9,4|9,0 9,5 8,10",
        "0,0 0,5 9,5|9,0 9,10",
        "5,0 5,0 0,5 0,5 10,5|6,2 6,10",
    ),
    (
        "9,0 9,0 1,0 1,0 0,5 0,5 5,4 9,6 8,9 4,10 0,9",
        "1,0 0,5 0,5 6,4 9,7 6,10 0,9|1,0 9,0",
        "10,0 3,1 1,4 6,5 9,7 6,10 0,10",
        "8,0 8,0 2,0 2,0 2,4 2,4 7,5 7,9 1,10",
        "9,0 9,0 1,0 1,0 1,4 6,4 9,6 8,9 4,10 1,9",
        "9,0 0,0 0,5 9,5 9,10 0,10",
        "2,0 2,4 2,4 8,5 7,9 0,10|2,0 8,0",
    ),
    (
        "8,0 3,2 0,6 2,10 7,10 9,7 6,5 1,6",
        "5,0 1,5 1,8 5,10 9,8 7,5 2,6",
        "9,1 5,0 1,3 0,7 4,10 8,9 9,6 5,4 1,6",
        "3,0 1,5 2,9 6,10 8,8 6,6 2,8",
        "7,0 2,4 0,8 4,10 9,8 7,5 1,7",
        "9,2 7,0 3,0 0,4 0,7 3,10 7,10 9,7 6,5 1,6",
        "9,1 9,2 8,1 6,0 2,2 0,6 2,10 7,10 9,7 6,4 1,6",
        "9,0 0,0 0,10 9,10 9,5 0,5",
        "1,0 0,5 1,9 5,10 9,8 6,5 1,8",
    ),
    (
        "0,0 0,0 9,0 9,0 4,10",
        "0,0 0,0 9,0 9,0 3,10|2,5 8,5",
        "1,2 1,0 1,0 9,0 9,0 6,5 5,10",
        "0,1 4,0 9,0 9,0 6,5 4,10|3,5 9,5",
        "0,0 0,0 9,0 9,0 9,2 5,6 4,10",
        "0,2 2,0 5,1 9,0 9,0 4,10|3,6 8,5",
        "0,3 0,0 0,0 9,0 9,0 4,10",
        "0,0 9,0 9,10",
        "0,0 9,0 2,10|1,4 9,6",
    ),
    (
        "8,1 4,0 1,2 3,4 7,6 9,8 5,10 1,8 3,6 7,3 9,0",
        "5,5 1,3 2,0 7,0 9,3 5,5 1,7 2,10 7,10 9,7 5,5",
        "6,5 3,4 2,2 5,0 8,2 7,4 4,5 1,8 4,10 8,8 8,6 5,5",
        "8,1 4,0 2,2 5,5 9,8 5,10 1,8 4,5 8,2 7,0",
        "5,0 1,2 5,5 9,2 5,0|5,5 0,8 5,10 10,8 5,5",
        "9,1 4,0 1,2 4,4 8,6 8,9 4,10 1,8 5,5 9,1",
        "5,0 2,1 2,4 5,5 8,4 8,1 5,0|5,5 1,6 1,9 5,10 9,9 9,6 5,5",
        "0,0 9,0 9,10 0,10 0,0|0,5 9,5",
    ),
    (
        "9,3 6,0 1,1 1,4 5,5 9,3 9,3 9,10",
        "9,2 5,0 0,3 4,5 9,3 9,2 8,6 5,10",
        "9,2 5,0 1,2 3,5 8,4 9,2 9,6 7,9 2,10",
        "8,2 4,0 1,3 4,5 8,2 8,2 6,10",
        "9,3 5,0 0,3 4,6 9,4 9,3 9,7 5,10 1,9",
        "8,1 3,0 1,4 5,5 8,1 8,1 8,10",
        "9,5 0,5 0,0 9,0 9,10 0,10",
        "9,5 0,5 0,0 9,0 9,10",
        "9,3 9,1 4,0 0,3 4,6 9,3 9,8 5,10 1,9",
    ),
)
"""Ways to write each digit: strokes through points x,y from 0,0 at the top left to
10,10. A stroke is curved but at a point that is there twice, or has two sizes only."""

PREPROCESS = Preprocess(
    colour="L", ink=Ink(margin=0.0, stroke=0.1), resize=Resize("exact", (8, 8), "box")
)

GRID = 32
"""Drawings are made in this many pixels a side, then 4 x 4 blocks averaged."""


def held_out(targets: Array) -> Array:
    """Return which pictures are for the test: one in `HELD_OUT` of each class."""
    held = np.zeros(len(targets), bool)
    for digit in range(10):
        held[np.flatnonzero(targets == digit)[HELD_OUT // 2 :: HELD_OUT]] = True
    return held


def curve(points: Array, count: int) -> Array:
    """Return `count` points of the Catmull-Rom spline through `points`."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    place = np.linspace(0, len(points) - 1, count, endpoint=False)
    index = place.astype(int)
    t = (place - index)[:, None]
    a, b, c, d = (ends[index + k] for k in range(4))
    spline: Array = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
        + (3 * (b - c) + d - a) * t**3
    )  # fmt: skip
    return spline


def polyline(points: Array, count: int) -> Array:
    """Return `count` points evenly along the straight lines between `points`."""
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0], np.cumsum(lengths + 1e-6)])
    place = np.linspace(0, along[-1], count)
    return np.stack([np.interp(place, along, axis) for axis in points.T], axis=1)


def written(digit: int, rng: np.random.Generator, count: int = 96) -> Array:
    """Return points along a digit as somebody might write it."""
    ways = SKELETONS[digit]
    strokes = [
        np.array([point.split(",") for point in stroke.split()], float) / 10
        for stroke in ways[rng.integers(len(ways))].split("|")
    ]
    boxy = len(np.unique(np.concatenate(strokes)[:, 0])) == 2
    line = polyline if digit == 1 or boxy or rng.random() < 0.12 else curve
    unsteady = rng.uniform(0.01, 0.06)
    parts = []
    for stroke in strokes:
        distinct, back = np.unique(stroke, axis=0, return_inverse=True)
        distinct = distinct + rng.normal(size=distinct.shape) * unsteady
        stroke = distinct[back.ravel()] + rng.normal(size=2) * unsteady / 2
        parts.append(line(stroke, count // len(strokes)))
    points = np.concatenate(parts)
    points = points - points.mean(axis=0)
    narrowest = {0: 0.38, 1: 0.6, 7: 0.6, 8: 0.36}.get(digit, 0.45)
    points[:, 0] *= np.exp(rng.uniform(np.log(narrowest), np.log(1.3)))
    points[:, 0] -= rng.normal(0.08, 0.28) * points[:, 1]
    angle = rng.normal(0, 0.1)
    cosine, sine = np.cos(angle), np.sin(angle)
    turned: Array = points @ np.array([[cosine, -sine], [sine, cosine]])
    return turned


def drawn(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return `count` drawings as (count, 8, 8) from 0 to 1, and their digits."""
    digits = np.arange(count) % 10
    pictures = np.empty((count, 8, 8), np.float32)
    middles = (np.arange(GRID) + 0.5) / GRID
    for index, digit in enumerate(digits):
        points = written(int(digit), rng)
        width = rng.uniform(0.1, 0.26)
        low, high = points.min(axis=0), points.max(axis=0)
        points = (points - (low + high) / 2) * (1 - width) / (high - low).max()
        points = points * rng.uniform(0.9, 1.03) + 0.5 + rng.uniform(-0.04, 0.04, 2)
        across, down = ((axis[:, None] - middles) ** 2 for axis in points.T)
        distance = np.sqrt((down[:, :, None] + across[:, None, :]).min(axis=0))
        ink = np.clip((width / 2 - distance) * GRID + 0.5, 0, 1)
        pictures[index] = ink.reshape(8, GRID // 8, 8, GRID // 8).mean(axis=(1, 3))
    return pictures * rng.uniform(0.8, 1, (count, 1, 1)).astype(np.float32), digits


def varied(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the pictures as other hands and pens might have drawn them."""
    import torch
    from torch.nn import functional

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(len(pictures), generator=generator) * (high - low) + low

    angle, slant = uniform(-0.26, 0.26), uniform(-0.3, 0.3)
    across, down = uniform(0.8, 1.25), uniform(0.85, 1.1)
    right, low = uniform(-0.15, 0.15), uniform(-0.12, 0.12)
    cosine, sine = angle.cos(), angle.sin()
    rows = (
        torch.stack([cosine / across, (slant * cosine - sine) / down, right], 1),
        torch.stack([sine / across, (slant * sine + cosine) / down, low], 1),
    )
    shape = (len(pictures), 1, GRID, GRID)
    grid = functional.affine_grid(
        torch.stack(rows, 1), list(shape), align_corners=False
    )
    bends = torch.randn(len(pictures), 2, 4, 4, generator=generator) * 0.05
    bends = functional.interpolate(
        bends, size=GRID, mode="bicubic", align_corners=False
    )
    large = functional.grid_sample(
        pictures, grid + bends.permute(0, 2, 3, 1), mode="bicubic", align_corners=False
    )
    edge = uniform(0.25, 0.6).view(-1, 1, 1, 1)
    bitmap = torch.sigmoid((large - edge) * 20)
    as_bitmap = (uniform(0, 1) < 0.7).view(-1, 1, 1, 1)
    large = torch.where(as_bitmap, bitmap, large.clamp(0, 1))
    pressure = uniform(0.7, 1.3).view(-1, 1, 1, 1)
    return (functional.avg_pool2d(large, GRID // 8) * pressure).clamp(0, 1)


def untrained() -> torch.nn.Sequential:
    """Return the network in PyTorch, with random weights."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 80, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(320, 10),
    )  # fmt: skip


def trained(
    pictures: Array, targets: Array, epochs: int, drawings: int
) -> dict[str, Array]:
    """Train on pictures and drawings, and return the averaged weights by name."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = untrained()
    average = {name: p.detach().clone() for name, p in network.named_parameters()}
    x = torch.from_numpy(pictures[:, None])
    y = torch.from_numpy(targets)
    more_x, more_y = map(torch.from_numpy, drawn(drawings, np.random.default_rng(0)))
    steps = epochs * (len(x) // 64)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(steps):
        some = torch.randint(len(x), (64,), generator=generator)
        more = torch.randint(drawings, (32,), generator=generator)
        batch = torch.cat([varied(x[some], generator), more_x[more][:, None]])
        loss = loss_of(network(batch), torch.cat([y[some], more_y[more]]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                average[name].lerp_(parameter, 0.01)
    return {name: value.numpy() for name, value in average.items()}


def graph_of(weights: dict[str, Array]) -> Graph:
    """Return the network, layer by layer, with weights as PyTorch orders them."""
    graph = Graph("digits")
    x = graph.input("image", ("N", 8, 8, 1))
    for number, layer, pooled in ((1, 0, False), (2, 2, True), (3, 5, True)):
        x = graph.add(
            ops.Conv(padding="same"),
            x,
            name=f"conv{number}",
            kernel=weights[f"{layer}.weight"].transpose(2, 3, 1, 0),
            bias=weights[f"{layer}.bias"],
        )
        x = graph.add(ops.Relu(), x, name=f"relu{number}")
        if pooled:
            pool = ops.MaxPool(kernel=(2, 2), stride=(2, 2))
            x = graph.add(pool, x, name=f"pool{number}")
    dense = weights["10.weight"].reshape(10, 80, 2, 2).transpose(2, 3, 1, 0)
    x = graph.add(ops.Flatten(), x, name="flatten")
    x = graph.add(
        ops.Dense(),
        x,
        name="logits",
        kernel=dense.reshape(320, 10),
        bias=weights["10.bias"],
    )
    graph.output(x)
    graph.labels = tuple("0123456789")
    graph.preprocess = PREPROCESS
    graph.postprocess = Postprocess("logits", "softmax", top=3)
    graph.provenance = {
        "name": "striate digits",
        "source_framework": "PyTorch",
        "converter": "striate.models.make_digits",
        "licence": "Apache-2.0",
        "data": "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
        "1998, doi:10.24432/C50P49, CC BY 4.0; as in scikit-learn's load_digits",
    }
    return graph


def examples(pictures: Array) -> list[dict[str, Array]]:
    """Return inputs for the model file: three pictures, (n, 8, 8) from 0 to 1."""
    return [{"image": pictures[:3, :, :, None]}]


def accuracy(graph: Graph, pictures: Array, targets: Array) -> float:
    """Return the share of pictures, (n, 8, 8) from 0 to 1, named rightly."""
    scores = graph.reference({"image": pictures[..., None]})["logits"]
    return float((scores.argmax(axis=1) == targets).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure on the pictures held out, and write the model."""
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(
        prog="python -m striate.models.make_digits", description=main.__doc__
    )
    parser.add_argument("out", help="the model file to write")
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--drawings", type=int, default=90000)
    options = parser.parse_args(argv)
    digits = load_digits()
    pictures = (digits.images / 16).astype(np.float32)
    held = held_out(digits.target)
    weights = trained(
        pictures[~held], digits.target[~held], options.epochs, options.drawings
    )
    graph = graph_of(weights)
    right = accuracy(graph, pictures[held], digits.target[held])
    graph.metadata = {"held_out": int(held.sum()), "held_out_accuracy": round(right, 4)}
    save(graph, options.out, examples=examples(pictures[held]))
    sys.stdout.write(f"{options.out}: {right:.2%} of {held.sum()} held out right\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
