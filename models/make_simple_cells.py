"""Compute the model of V1 that names the main orientation of a picture.

Run ``python -m striate.models.make_simple_cells simple_cells.h5``. Nothing is trained:
every weight follows from the formulas below.

# Design

`simple1` to `simple5` are simple cells: Gabor filters, half-wave rectified, in twelve
orientations and four phases, at five sizes an octave apart. The sizes are one bank of
filters on a pyramid of pictures, each blurred and halved from the one before. The sum
of the squares of the four phases is what a complex cell answers: it depends on
orientation, no longer on where a line is. `orientation` adds the complex cells of the
whole picture and all sizes, `share` divides by the sum over orientations. A little is
added for the label "none", which wins where there is no contrast.

Orientation is that of the stripes, counter-clockwise from horizontal: 0° is
horizontal stripes, 45° rise to the right, 90° are upright.

References
----------
D. H. Hubel, T. N. Wiesel, "Receptive fields, binocular interaction and functional
architecture in the cat's visual cortex", Journal of Physiology 160, 1962.
E. H. Adelson, J. R. Bergen, "Spatiotemporal energy models for the perception of
motion", Journal of the Optical Society of America A 2, 1985.
P. J. Burt, E. H. Adelson, "The Laplacian pyramid as a compact image code", IEEE
Transactions on Communications 31, 1983.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from striate import Graph, Postprocess, Preprocess, Resize, ops, save

Array = NDArray[Any]

ORIENTATIONS = tuple(range(0, 180, 15))
PHASES = (0, 90, 180, 270)
SCALES = 5
SIDE = 256
"""Pictures are brought to this many pixels a side."""

WAVELENGTH = 4.0
"""Pixels a period of the filters, at the finest size."""

SIGMA = 2.0
"""Pixels a standard deviation of their window."""

FAINTEST = 2e-6
"""The squared response that the label "none" stands for."""


def gabor(orientation: float, phase: float) -> Array:
    """Return a filter of 9 x 9 for stripes of `orientation`, of sum 0 and norm 1."""
    y, x = np.mgrid[-4:5, -4:5]
    angle = np.deg2rad(orientation)
    across = x * np.sin(angle) + y * np.cos(angle)
    window = np.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    wave = np.cos(2 * np.pi * across / WAVELENGTH + np.deg2rad(phase))
    field = window * (wave - (window * wave).sum() / window.sum())
    unit: Array = field / np.sqrt((field**2).sum())
    return unit


def bank() -> Array:
    """Return every filter as a kernel (9, 9, 1, orientations * phases)."""
    filters = [gabor(angle, phase) for angle in ORIENTATIONS for phase in PHASES]
    return np.stack(filters, axis=-1)[:, :, None].astype(np.float32)


def blur() -> Array:
    """Return the binomial kernel (5, 5, 1, 1) of sum 1."""
    line = np.array([1, 4, 6, 4, 1], np.float32) / 16
    return (line[:, None] * line)[:, :, None, None]


def pooling() -> Array:
    """Return the kernel that adds phases and sizes to orientations, and "none"."""
    kernel = np.zeros((SCALES, len(ORIENTATIONS), len(PHASES), len(ORIENTATIONS) + 1))
    for index in range(len(ORIENTATIONS)):
        kernel[:, index, :, index] = 1 / SCALES
    return kernel.reshape(-1, len(ORIENTATIONS) + 1)


def build() -> Graph:
    """Return the network."""
    graph = Graph("simple cells")
    picture = graph.input("image", ("N", SIDE, SIDE, 1))
    filters: Array | str = bank()
    binomial: Array | str = blur()
    answers = []
    for scale in range(1, SCALES + 1):
        if scale > 1:
            picture = graph.add(
                ops.Conv(stride=(2, 2), padding="valid"),
                picture,
                name=f"half{scale}",
                kernel=binomial,
            )
            binomial = "half2/kernel"
        field = graph.add(ops.Conv(), picture, name=f"field{scale}", kernel=filters)
        filters = "field1/kernel"
        simple = graph.add(ops.Relu(), field, name=f"simple{scale}")
        energy = graph.add(ops.Mul(), simple, simple, name=f"energy{scale}")
        answers.append(graph.add(ops.GlobalAveragePool(), energy, name=f"mean{scale}"))
    cells = graph.add(ops.Concat(axis=-1), *answers, name="complex")
    none = np.zeros(len(ORIENTATIONS) + 1)
    none[-1] = FAINTEST
    orientation = graph.add(
        ops.Dense(), cells, name="orientation", kernel=pooling(), bias=none
    )
    total = graph.add(
        ops.Dense(), orientation, name="total", kernel=np.ones((len(none), 1))
    )
    graph.output(graph.add(ops.Div(), orientation, total, name="share"))
    graph.labels = (*(f"{angle}°" for angle in ORIENTATIONS), "none")
    graph.preprocess = Preprocess(
        colour="L",
        resize=Resize("shortest_edge", (SIDE,), "lanczos"),
        crop=(SIDE, SIDE),
    )
    graph.postprocess = Postprocess("share", "none", top=3)
    graph.provenance = {
        "name": "striate simple cells",
        "converter": "striate.models.make_simple_cells",
        "licence": "Apache-2.0",
    }
    return graph


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the weights and write the model."""
    parser = argparse.ArgumentParser(
        prog="python -m striate.models.make_simple_cells", description=main.__doc__
    )
    parser.add_argument("out", help="the model file to write")
    options = parser.parse_args(argv)
    save(build(), options.out)
    sys.stdout.write(f"{options.out}: {len(ORIENTATIONS)} orientations\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
