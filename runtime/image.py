"""Pictures to arrays, as a model file's preprocessing says.

Every picture goes through the same steps, in this order, each as the fields of
`Preprocess` say: upright as its EXIF orientation tells, 8 bits a channel, on white
where it is transparent, in the wanted colours; `invert`; `ink`; `resize`; `crop`;
and last ``(x * scale - mean) / std``.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .errors import GraphError, ImageError, MissingExtraError
from .record import Record, record
from .spec import Array, shape_text

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = {"RGB": 3, "BGR": 3, "L": 1}
"""Colour orders and their channels; L is luminance, 0.299 R + 0.587 G + 0.114 B."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "lanczos")

WORK_SIDE = 256
"""The longest side a drawing is searched at."""

LARGEST = 1 << 27
"""The most pixels that a picture is resized to."""

FAINTEST = 12
"""The least difference between ink and paper, of 255, that counts as drawn."""


@record
class Resize(Record):
    """Bring a picture to another size.

    Parameters
    ----------
    mode : str
        ``"exact"`` gives `size` and ignores the shape of the picture;
        ``"shortest_edge"`` keeps the shape, the longer edge rounded down.
    size : tuple of int
        ``(height, width)`` for ``"exact"``, ``(edge,)`` for ``"shortest_edge"``.
    interpolation : str
        ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"box"`` or ``"lanczos"``.
    antialias : bool
        Whether shrinking averages every pixel, as Pillow does, or only samples the
        neighbours of each point, as OpenCV does. Box and Lanczos always average,
        nearest never does.
    """

    mode: str
    size: tuple[int, ...]
    interpolation: str = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        _choice("resize mode", self.mode, ("exact", "shortest_edge"))
        _sizes("resize size", self.size, 2 if self.mode == "exact" else 1)
        _choice("interpolation", self.interpolation, INTERPOLATIONS)
        _require(isinstance(self.antialias, bool), f"antialias {self.antialias!r}")
        _require(
            self.antialias or self.interpolation not in ("box", "lanczos"),
            f"{self.interpolation} resizing always antialiases",
        )

    def target(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a picture of `size` gets."""
        if self.mode == "exact":
            return self.size[0], self.size[1]
        height, width = size
        edge = self.size[0]
        longer = max(1, edge * max(size) // min(size))
        return (longer, edge) if height > width else (edge, longer)

    def attributes(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return _plain(self)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> Resize:
        """Build from plain JSON values; raise `GraphError` unless each fits."""
        return cls(**_fields(cls, attributes))


@record
class Ink(Record):
    """Cut a drawing out of its paper into the middle of a square.

    The ink comes out as 255 and the paper as 0, whichever is darker in the picture.
    The square's side is the longer extent of the ink, and the margins.

    The picture is looked at with a longest side of 256 pixels, smoothed over three, and
    again closer up if the drawing takes less than half of it. The paper is a quadratic
    surface, which shading is near enough. Ink is on the side of the paper where the sum
    of cubed differences is, and differs by at least a fifth of the strongest ink, four
    times the paper's noise, and a fifth of the strongest within a sixteenth of the
    picture; the ratio to that last one is how much of the pixel is ink. Connected parts
    are left out that have less than a twentieth of the area of the largest, or nowhere
    half of the strongest ink.

    Parameters
    ----------
    margin : float
        The paper left on each side, as a fraction of the square's side.
    stroke : float
        Thinner strokes are thickened to this fraction of the square's side; 0 for
        none.
    """

    margin: float = 0.0
    stroke: float = 0.0

    def __post_init__(self) -> None:
        _numbers("ink margin", (self.margin,))
        _numbers("ink stroke", (self.stroke,))
        _require(0 <= self.margin < 0.5, f"ink margin {self.margin}, wanted 0 to 0.5")
        _require(0 <= self.stroke < 0.5, f"ink stroke {self.stroke}, wanted 0 to 0.5")

    def attributes(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return _plain(self)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> Ink:
        """Build from plain JSON values; raise `GraphError` unless each fits."""
        return cls(**_fields(cls, attributes))


@record
class Preprocess(Record):
    """How a picture becomes the input of a network.

    Parameters
    ----------
    colour : str
        ``"RGB"``, ``"BGR"`` or ``"L"`` (grey, one channel).
    invert : bool
        Whether to take the negative, 255 - x.
    ink : Ink, optional
        How a drawing is cut out; only for ``"L"``.
    resize : Resize, optional
        How the picture is brought to size.
    crop : tuple of int, optional
        ``(height, width)`` cut from the middle; black where the picture is smaller.
    scale, mean, std : float, tuple of float
        The input is ``(x * scale - mean) / std`` of pixels from 0 to 255; one mean
        and std serve every channel, or there is one each in the order of `colour`.
    """

    colour: str = "RGB"
    invert: bool = False
    ink: Ink | None = None
    resize: Resize | None = None
    crop: tuple[int, int] | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        _choice("colour", self.colour, tuple(COLOURS))
        _require(isinstance(self.invert, bool), f"invert {self.invert!r}")
        if self.crop is not None:
            _sizes("crop", self.crop, 2)
        _require(self.ink is None or self.colour == "L", "ink needs the colour L")
        _numbers("scale", (self.scale,))
        for name, values in (("mean", self.mean), ("std", self.std)):
            _numbers(name, values)
            _require(
                len(values) in (1, self.channels),
                f"{name} has {len(values)} numbers for {self.channels} channels",
            )
        _require(0 not in self.std, f"std {self.std} holds a zero")

    @property
    def channels(self) -> int:
        """The channels of the arrays that come out."""
        return COLOURS[self.colour]

    def attributes(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return _plain(self)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> Preprocess:
        """Build from plain JSON values; raise `GraphError` unless each fits."""
        values = _fields(cls, attributes)
        if values["ink"] is not None:
            values["ink"] = Ink.from_attributes(values["ink"])
        if values["resize"] is not None:
            values["resize"] = Resize.from_attributes(values["resize"])
        return cls(**values)


@record
class Postprocess(Record):
    """How an output is read as classes.

    Parameters
    ----------
    output : str
        The value that holds a score for each class on its last axis.
    activation : str
        What makes the scores probabilities: ``"softmax"``, ``"sigmoid"``, or
        ``"none"`` if they are already.
    top : int
        How many classes are worth telling.
    """

    output: str
    activation: str = "softmax"
    top: int = 5

    def __post_init__(self) -> None:
        _require(isinstance(self.output, str), f"postprocess output {self.output!r}")
        _choice("activation", self.activation, ("softmax", "sigmoid", "none"))
        _sizes("top", (self.top,), 1)

    def probabilities(self, scores: Array) -> Array:
        """Return the probabilities of `scores`, along the last axis."""
        if self.activation == "none":
            return scores
        if self.activation == "sigmoid":
            halved: Array = 0.5 * (np.tanh(0.5 * scores) + 1)
            return halved
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        softmax: Array = powers / powers.sum(axis=-1, keepdims=True)
        return softmax

    def attributes(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return _plain(self)

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> Postprocess:
        """Build from plain JSON values; raise `GraphError` unless each fits."""
        return cls(**_fields(cls, attributes))


def load_image(
    source: str | os.PathLike[str] | bytes | BinaryIO | Image | Array,
    preprocess: Preprocess,
    size: tuple[int, int] | None = None,
) -> Array:
    """Return a picture as the input of a network, float32 of shape (1, H, W, C).

    Parameters
    ----------
    source : path, bytes, binary file, Pillow image or Array
        A file in any format Pillow reads, or its bytes; or pixels, (H, W) or
        (H, W, C) with 1 to 4 channels: grey, grey and alpha, RGB, RGBA. Pixels are
        uint8, uint16 from 0 to 65535, bool, or floats from 0 to 1, and are rounded
        to 8 bits.
    preprocess : Preprocess
        What to do with it.
    size : tuple of int, optional
        The (height, width) the network wants, used if `preprocess` neither resizes
        nor crops.

    Raises
    ------
    ImageError
        If the source is no picture, or no whole one; the message names it.
    """
    name = _name(source)
    picture = _open(source, name)
    try:
        picture = _upright(picture)
        picture = _on_white(picture)
        picture = picture.convert("L" if preprocess.colour == "L" else "RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: not a whole picture: {error}") from error
    if preprocess.invert:
        picture = picture.point(lambda level: 255 - level)
    if preprocess.ink is not None:
        picture = _cut_out(picture, preprocess.ink, name)
    resize = preprocess.resize
    if resize is None and preprocess.crop is None and size is not None:
        resize = Resize("exact", size)
    if resize is not None:
        picture = _resized(picture, resize, name)
    if preprocess.crop is not None:
        picture = _cropped(picture, preprocess.crop)
    pixels = np.asarray(picture, np.float32)
    pixels = pixels.reshape(1, picture.height, picture.width, preprocess.channels)
    if preprocess.colour == "BGR":
        pixels = pixels[..., ::-1]
    mean = np.asarray(preprocess.mean, np.float32)
    std = np.asarray(preprocess.std, np.float32)
    return np.ascontiguousarray((pixels * np.float32(preprocess.scale) - mean) / std)


def _name(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if isinstance(source, np.ndarray):
        return f"array {source.dtype} {shape_text(source.shape)}"
    for attribute in ("name", "filename"):
        if isinstance(getattr(source, attribute, None), str):
            return str(getattr(source, attribute)) or "picture"
    return "picture"


def _open(source: Any, name: str) -> Image:
    """Return the picture that `source` holds, read to the end."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("pictures need Pillow: pip install pillow") from error
    if isinstance(source, np.ndarray):
        return Image.fromarray(_eight_bits(source, name))
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise ImageError(f"{name}: found a folder, wanted a picture")
        if not path.exists():
            raise ImageError(f"{name}: no such file")
        if not path.is_file():
            raise ImageError(f"{name}: found no regular file, wanted a picture")
    elif isinstance(source, bytes):
        source = io.BytesIO(source)
    elif not isinstance(source, Image.Image) and not hasattr(source, "read"):
        raise ImageError(
            f"found {type(source).__name__}, wanted a path, bytes, a binary file, a "
            "Pillow image or an array"
        )
    try:
        if isinstance(source, Image.Image):
            source.load()
            given: Image.Image = source
            return given
        picture: Image.Image
        with Image.open(source) as picture:
            if picture.format == "EPS":
                raise ImageError(f"{name}: found EPS, which is a program, not pixels")
            picture.load()
            return picture
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture in a format Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large a picture: {error}") from error
    except PermissionError as error:
        raise ImageError(f"{name}: {error.strerror}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"{name}: not a whole picture: {error}") from error


def _eight_bits(array: Array, name: str) -> Array:
    """Return pixels as uint8, (H, W) or (H, W, 2 to 4)."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim == 2 or (array.ndim == 3 and 2 <= array.shape[-1] <= 4)
    if not fits or 0 in array.shape:
        raise ImageError(f"{name}: wanted (H, W) or (H, W, C) with 1 to 4 channels")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == bool:
        return np.asarray(np.where(array, 255, 0), np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        wide = (array.astype(np.uint32) * 255 + 32767) // 65535
        return np.asarray(wide, np.uint8)
    if array.dtype.kind != "f":
        raise ImageError(f"{name}: wanted uint8, uint16, bool or floats from 0 to 1")
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= 1:
        raise ImageError(
            f"{name}: found floats from {low:g} to {high:g}, wanted 0 to 1"
        )
    return np.asarray(np.rint(array * 255), np.uint8)


def _upright(picture: Image) -> Image:
    """Return the picture turned as EXIF tells, as it is if that cannot be read."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture


def _on_white(picture: Image) -> Image:
    """Return the picture in 8 bits a channel, on white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        pixels = np.asarray(picture)
        if pixels.dtype.kind in "iu":
            pixels = np.clip(pixels, 0, 65535).astype(np.uint16)
        return Image.fromarray(_eight_bits(pixels, f"mode {picture.mode}"))
    if "transparency" in picture.info or picture.getbands()[-1] == "A":
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture


def _grey_at_work_side(picture: Image) -> Array:
    """Return the luminance at `WORK_SIDE`, float32."""
    from PIL import Image

    factor = WORK_SIDE / max(picture.size)
    size = (
        max(1, round(picture.width * factor)),
        max(1, round(picture.height * factor)),
    )
    sampling = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    return np.asarray(picture.convert("L").resize(size, sampling), np.float32)


def _smooth(grey: Array) -> Array:
    """Return the mean over three pixels each way, the middle one counted twice.

    It makes a thin line as strong between two rows of pixels as on one.
    """
    for axis in (0, 1):
        rows = np.moveaxis(grey, axis, 0)
        padded = np.concatenate([rows[:1], rows, rows[-1:]])
        mean = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        grey = np.moveaxis(mean, 0, axis)
    return grey


def _cut_out(picture: Image, ink: Ink, name: str) -> Image:
    """Return the drawing in the middle of a square, as `Ink` says."""
    from PIL import Image

    for _ in range(4):
        drawing = _drawing(_grey_at_work_side(picture), name)
        rows = np.flatnonzero(drawing.max(axis=1) > 0.4)
        columns = np.flatnonzero(drawing.max(axis=0) > 0.4)
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        extent = max(bottom - top, right - left)
        factor = max(picture.size) / WORK_SIDE
        if extent * 2 > WORK_SIDE or factor <= 1:
            break
        spare = extent / 4
        picture = picture.crop(
            (
                max(0, int((left - spare) * factor)),
                max(0, int((top - spare) * factor)),
                min(picture.width, math.ceil((right + spare) * factor)),
                min(picture.height, math.ceil((bottom + spare) * factor)),
            )
        )
    cut = drawing[top:bottom, left:right]
    side = max(extent, round(extent / (1 - 2 * ink.margin)))
    square = np.zeros((side, side), np.float32)
    y, x = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    lacking = round((ink.stroke * side - _stroke_width(square)) / 2)
    if lacking > 0:
        square = _extreme(square, 2 * lacking + 1, np.maximum)
    return Image.fromarray(np.rint(square * 255).astype(np.uint8))


def _drawing(grey: Array, name: str) -> Array:
    """Return how much of each pixel is ink, 0 to 1."""
    steps = np.concatenate([np.diff(grey, axis=axis)[::2].ravel() for axis in (0, 1)])
    noise = 0.4 * float(np.median(np.abs(steps)))
    differs = _off_paper(_smooth(grey), noise)
    if (differs * differs * differs).sum() < 0:
        differs = -differs
    strongest = float(differs.max())
    if strongest < max(FAINTEST, 6 * noise):
        raise ImageError(f"{name}: nothing is drawn on it")
    faint = min(max(0.2 * strongest, 4 * noise), 0.5 * strongest)
    near = _extreme(differs, WORK_SIDE // 8, np.maximum)
    mask = (differs > faint) & (differs > 0.2 * near)
    mask = _without_specks(mask, differs > 0.5 * strongest)
    amount = np.zeros(grey.shape, np.float32)
    np.divide(differs, near, out=amount, where=mask, casting="same_kind")
    return amount


def _off_paper(grey: Array, noise: float) -> Array:
    """Return how far each pixel is from the paper.

    The paper is a quadratic surface, which shading is near enough, fitted to the
    pixels close to it; it starts flat at the median of the outermost pixels.
    """
    terms = _quadratic(grey.shape[0], grey.shape[1])
    sampled = (slice(None, None, 3), slice(None, None, 3))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    differs: Array = grey - np.median(border)
    close = max(0.3 * float(np.ptp(grey)), FAINTEST / 4)
    for _ in range(4):
        paper = np.abs(differs[sampled]) <= close
        rows = terms[sampled][paper].astype(np.float64)
        levels = grey[sampled][paper]
        surface, *_ = np.linalg.lstsq(rows.T @ rows, rows.T @ levels, rcond=None)
        differs = grey - terms @ surface.astype(np.float32)
        close = max(4 * noise, 0.15 * float(np.abs(differs).max()), FAINTEST / 4)
    return differs


@lru_cache(maxsize=8)
def _quadratic(height: int, width: int) -> Array:
    """Return 1, x, y, xx, xy and yy at each pixel, x and y from -1 to 1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    terms = np.broadcast_arrays(np.ones_like(x), x, y, x * x, x * y, y * y)
    return np.stack(terms, axis=-1)


def _extreme(image: Array, window: int, extreme: np.ufunc) -> Array:
    """Return the minimum or maximum over a square about each pixel."""
    for axis in (0, 1):
        before = (window - 1) // 2
        pad = [(0, 0), (0, 0)]
        pad[axis] = (before, window - 1 - before)
        image = np.pad(image, pad, mode="edge")
        reach = 1
        while reach < window:
            step = min(reach, window - reach)
            low = [slice(None), slice(None)]
            high = [slice(None), slice(None)]
            low[axis], high[axis] = slice(None, -step), slice(step, None)
            image = extreme(image[tuple(low)], image[tuple(high)])
            reach += step
    return image


def _without_specks(mask: Array, sure: Array) -> Array:
    """Return the connected parts of `mask` that matter.

    They hold a pixel of `sure` and are at least a twentieth of the largest.
    """
    parts: list[int] = []

    def root(part: int) -> int:
        while parts[part] != part:
            parts[part] = parts[parts[part]]
            part = parts[part]
        return part

    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))))
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    runs: list[tuple[int, int, int, int]] = []
    above: list[tuple[int, int, int, int]] = []
    here: list[tuple[int, int, int, int]] = []
    for part, (y, left, right) in enumerate(
        zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ):
        parts.append(part)
        if here and here[0][0] != y:
            above, here = here, []
        if above and above[0][0] != y - 1:
            above = []
        for _, other_left, other_right, other in above:
            if other_left <= right and left <= other_right:
                parts[root(other)] = root(part)
        here.append((y, left, right, part))
        runs.append(here[-1])
    areas: dict[int, int] = {}
    seeded = set()
    for y, left, right, part in runs:
        areas[root(part)] = areas.get(root(part), 0) + right - left
        if sure[y, left:right].any():
            seeded.add(root(part))
    least = max(areas[part] for part in seeded) / 20
    kept = np.zeros_like(mask)
    for y, left, right, part in runs:
        kept[y, left:right] = root(part) in seeded and areas[root(part)] >= least
    return kept


def _stroke_width(square: Array) -> float:
    """Return about how wide the strokes are: twice their area over their outline."""
    mask = np.pad(square > 0.5, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    area = int(np.count_nonzero(mask))
    outline = area - int(np.count_nonzero(inner & mask[1:-1, 1:-1]))
    return 2 * area / max(outline, 1)


def _resized(picture: Image, resize: Resize, name: str) -> Image:
    from PIL import Image

    height, width = resize.target((picture.height, picture.width))
    if height * width > LARGEST:
        raise ImageError(
            f"{name}: {picture.height} x {picture.width} pixels are too long and thin "
            f"to be resized to {height} x {width}"
        )
    sampling = Image.Resampling[resize.interpolation.upper()]
    if resize.antialias or resize.interpolation == "nearest":
        return picture.resize((width, height), sampling)
    across, down = picture.width / width, picture.height / height
    return picture.transform(
        (width, height),
        Image.Transform.AFFINE,
        (across, 0.0, 0.0, 0.0, down, 0.0),
        sampling,
    )


def _cropped(picture: Image, size: tuple[int, int]) -> Image:
    height, width = size
    top = round((picture.height - height) / 2)
    left = round((picture.width - width) / 2)
    return picture.crop((left, top, left + width, top + height))


def _plain(settings: Any) -> dict[str, Any]:
    return {key: _listed(value) for key, value in dataclasses.asdict(settings).items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _fields(kind: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return `attributes` as constructor arguments, lists as tuples."""
    name = kind.__name__.lower()
    if not isinstance(attributes, dict):
        raise GraphError(f"{name}: found {attributes!r}, wanted an object")
    wanted = {field.name for field in dataclasses.fields(kind)}
    unknown, missing = attributes.keys() - wanted, wanted - attributes.keys()
    if unknown or missing:
        raise GraphError(
            f"{name}: unknown {sorted(unknown)}, missing {sorted(missing)}; "
            f"wanted {sorted(wanted)}"
        )
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in attributes.items()
    }


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GraphError(message)


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    _require(
        isinstance(value, str) and value in choices,
        f"{name} {value!r}, wanted one of {', '.join(choices)}",
    )


def _sizes(name: str, value: Any, count: int) -> None:
    _require(
        isinstance(value, tuple)
        and len(value) == count
        and all(type(v) is int and 1 <= v <= 65535 for v in value),
        f"{name} {value!r}, wanted {count} whole numbers from 1 to 65535",
    )


def _numbers(name: str, value: Any) -> None:
    _require(
        isinstance(value, tuple)
        and all(type(v) in (int, float) and math.isfinite(v) for v in value),
        f"{name} {value!r}, wanted finite numbers",
    )
