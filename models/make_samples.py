"""Draw the sample pictures.

Run ``python -m striate.models.make_samples FOLDER``. The photograph is scikit-learn's;
everything else is drawn here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[Any]

DIGITS = {
    "zero": "30,8 14,20 9,50 18,82 34,92 50,76 55,42 46,14 27,7",
    "one": "22,28 44,7 42,50 40,93",
    "two": "12,26 28,8 48,16 46,40 26,68 9,90 34,88 58,91",
    "three": "12,14 36,7 50,24 28,44 50,58 46,84 22,93 8,82",
    "four": ("36,7 22,36 8,62 34,61 62,58|44,34 43,64 41,94"),
    "five": ("18,10 16,28 13,46 36,42 52,60 44,86 22,93 8,84|18,10 34,9 54,6"),
    "six": "44,6 22,30 10,62 22,90 44,84 48,62 30,54 14,66",
    "seven": ("8,13 30,11 55,8|55,8 40,46 28,93|22,50 36,48 52,46"),
    "eight": "48,20 30,6 16,22 32,44 50,66 36,93 14,78 28,50 46,30 46,16",
    "nine": "48,24 28,8 12,26 24,46 46,34 48,22 46,58 38,94",
}
"""Strokes of each digit, points x,y from the top left, in hundredths of its height."""

STYLES = {
    "zero": (160, 7, 0.6, (30, 30, 90), (250, 248, 240)),
    "one": (200, 9, 0.6, (235, 235, 230), (40, 70, 55)),
    "two": (120, 12, 0.7, (0, 0, 0), (255, 255, 255)),
    "three": (300, 4, 0.45, (60, 60, 70), (225, 222, 215)),
    "four": (96, 10, 0.75, (160, 20, 30), (255, 255, 255)),
    "five": (28, 12, 0.7, (255, 255, 255), (0, 0, 0)),
    "six": (220, 15, 0.5, (20, 20, 20), (205, 200, 190)),
    "seven": (256, 8, 0.6, (25, 25, 60), (245, 242, 232)),
    "eight": (180, 7, 0.7, (250, 250, 250), (20, 40, 110)),
    "nine": (400, 6, 0.4, (40, 40, 40), (230, 230, 225)),
}
"""Pixels a side, width of the pen in hundredths of the digit, the digit's share of the
side, and the colours of ink and paper."""

STRIPES = {15: 24, 60: 9, 90: 40, 135: 16}
"""Orientation in degrees to pixels a period."""


def curve(given: Array, count: int = 200) -> Array:
    """Return points on a smooth curve near those given."""
    place = np.linspace(0, len(given) - 1, count)
    lines = np.stack(
        [np.interp(place, np.arange(len(given)), axis) for axis in given.T], axis=1
    )
    for _ in range(2):
        width = count // len(given)
        ends = (
            np.repeat(lines[:1], width, axis=0),
            np.repeat(lines[-1:], width, axis=0),
        )
        padded = np.concatenate([ends[0], lines, ends[1]])
        kernel = np.ones(width) / width
        smooth = np.stack(
            [np.convolve(axis, kernel, mode="same") for axis in padded.T], axis=1
        )
        lines = smooth[width:-width]
    return lines


def digit(name: str, rng: np.random.Generator) -> Image.Image:
    """Return a digit drawn by pen, chalk or felt tip."""
    side, pen, share, ink, paper = STYLES[name]
    scale = 4
    height = side * scale * share
    mask = Image.new("L", (side * scale, side * scale), 0)
    canvas = ImageDraw.Draw(mask)
    spare = side * scale - height
    corner = rng.uniform(0.3, 0.7, 2) * (spare + height * 0.35, spare)
    radius = max(height * pen / 200, scale / 2)
    for stroke in DIGITS[name].split("|"):
        points = np.array([point.split(",") for point in stroke.split()], float)
        line = curve(points) if len(points) > 3 else points
        line = line * height / 100 + corner
        canvas.line([tuple(p) for p in line], fill=255, width=round(2 * radius))
        for x, y in line:
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    mask = mask.resize((side, side), Image.Resampling.BOX)
    picture = Image.composite(
        Image.new("RGB", mask.size, ink), Image.new("RGB", mask.size, paper), mask
    )
    pixels = np.asarray(picture, np.float32)
    shade = 1 - 0.15 * np.linspace(0, 1, side)[:, None, None]
    grain = rng.normal(0, 1, (side, side, 1))
    return Image.fromarray(np.clip(pixels * shade + grain, 0, 255).astype(np.uint8))


def stripes(orientation: float, period: float) -> Image.Image:
    """Return a grating; its stripes turn counter-clockwise from horizontal."""
    y, x = np.mgrid[:240, :320]
    angle = np.deg2rad(orientation)
    across = x * np.sin(angle) + y * np.cos(angle)
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * across / period)
    return Image.fromarray((wave * 255).astype(np.uint8))


def main(argv: Sequence[str] | None = None) -> int:
    """Draw every sample picture into a folder."""
    from sklearn.datasets import load_sample_image

    parser = argparse.ArgumentParser(
        prog="python -m striate.models.make_samples", description=main.__doc__
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(argv).folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for name in DIGITS:
        picture = digit(name, rng)
        if picture.width < 300:
            picture.save(folder / f"{name}.png", optimize=True)
        else:
            picture.save(folder / f"{name}.jpg", quality=80)
    for orientation, period in STRIPES.items():
        grating = stripes(orientation, period)
        grating.save(folder / f"stripes_{orientation}.png", optimize=True)
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    photograph.thumbnail((320, 320), Image.Resampling.LANCZOS)
    photograph.save(folder / "temple.jpg", quality=80)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
