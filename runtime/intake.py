"""What a caller hands over: taken as it is, converted, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import DTypeError, ShapeError
from .graph import Input
from .spec import Array, Spec, shape_text

FLOAT32 = np.dtype("float32")

EXACT_INTEGERS = 1 << 24
"""Up to here float32 holds every whole number."""


def arrays_of(feeds: Mapping[str, Any], entries: Sequence[Input]) -> tuple[Array, ...]:
    """Return the arrays for the inputs, in their order.

    Raises
    ------
    ShapeError, DTypeError
        If one is missing, unknown or does not fit.
    """
    if not isinstance(feeds, Mapping):
        raise ShapeError(
            f"feeds: found {type(feeds).__name__}, wanted a dictionary of arrays"
        )
    unknown = feeds.keys() - {entry.name for entry in entries}
    missing = [entry.name for entry in entries if entry.name not in feeds]
    if unknown or missing:
        raise ShapeError(
            f"inputs missing: {missing}, unknown: {sorted(map(str, unknown))}; "
            f"wanted {[entry.name for entry in entries]}"
        )
    return tuple(as_array(feeds[entry.name], entry) for entry in entries)


def as_array(x: Any, entry: Input) -> Array:
    """Return `x` as a contiguous array of the input's element type.

    Raises
    ------
    ShapeError
        If it has another shape; nothing is copied before that is known.
    DTypeError
        If it is no array of numbers, or a conversion would change what they mean.
    """
    array = x if type(x) is np.ndarray else _foreign(x, entry)
    flags = array.flags
    ready = flags.c_contiguous and flags.aligned
    if ready and array.dtype is FLOAT32 and entry.dtype == "float32":
        return array
    if array.dtype.kind in "fiub":
        entry.symbols(array.shape)
    array = _converted(array, entry)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = np.array(array, order="C")
    return array


def _foreign(x: Any, entry: Input) -> Array:
    """Return what is not a plain NumPy array as one, without a copy if it can be.

    Raises
    ------
    DTypeError
        If it cannot be read as an array, or has masked elements.
    """
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise DTypeError(
            f"input {entry.name!r}: found masked elements, which have no value; "
            "wanted an array without, such as x.filled(0)"
        )
    try:
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        array = np.asarray(x)
    except MemoryError:
        raise
    except Exception as error:
        raise DTypeError(
            f"input {entry.name!r}: found {type(x).__name__}, wanted an array of "
            f"{entry.dtype} {shape_text(entry.shape)}: {error}"
        ) from error
    return array


def _converted(array: Array, entry: Input) -> Array:
    kind, want = array.dtype.kind, np.dtype(entry.dtype)
    if array.dtype == want:
        return array
    found = f"input {entry.name!r}: found {array.dtype}, wanted {want}"
    if kind not in "fiub" or (want.kind in "iub" and kind not in "iub"):
        raise DTypeError(f"{found}; only real numbers can be converted")
    if want.kind in "iu" and kind in "iu" and array.size:
        limits = np.iinfo(want)
        if array.min() < limits.min or array.max() > limits.max:
            raise DTypeError(f"{found}, and a value is out of its range")
    if want.kind == "f" and kind in "iu" and array.size:
        largest = max(abs(int(array.min())), abs(int(array.max())))
        if largest > EXACT_INTEGERS:
            raise DTypeError(f"{found}, which cannot hold {largest} exactly")
    with np.errstate(all="ignore"):
        converted = array.astype(want, order="C")
    if kind == "f" and np.isinf(converted).sum() > np.isinf(array).sum():
        raise DTypeError(f"{found}, and a value is too large for it")
    return converted


def take_outputs(
    out: Mapping[str, Any],
    specs: Sequence[tuple[str, Spec]],
    arrays: Iterable[Array],
    results: list[Array],
) -> None:
    """Put the arrays of `out` in the places of the results they stand for.

    Parameters
    ----------
    out : dict
        Output name to array, as a caller gave them.
    specs : sequence of (str, Spec)
        The outputs, in the order of `results`.
    arrays : iterable of Array
        The inputs of the run.
    results : list of Array
        Where the run writes; changed.

    Raises
    ------
    ShapeError
        If one does not fit, is unknown, or overlaps another array of the run.
    """
    names = [name for name, _ in specs]
    unknown = [name for name in out if name not in names]
    if unknown:
        raise ShapeError(f"out= names {unknown}, wanted some of {names}")
    taken = list(arrays)
    for index, (name, spec) in enumerate(specs):
        if name not in out:
            continue
        array = _checked_out(name, spec, out[name])
        if any(np.shares_memory(array, other) for other in taken):
            raise ShapeError(
                f"out= for {name!r} shares memory with an input or another output"
            )
        taken.append(array)
        results[index] = array


def _checked_out(name: str, spec: Spec, out: Any) -> Array:
    """Return the array if a run can write `spec` to it, else raise `ShapeError`."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        found = type(out).__name__
    else:
        flags = out.flags
        whole = flags.c_contiguous and flags.aligned and flags.writeable
        if whole and (out.shape, out.dtype) == (spec.shape, np.dtype(spec.dtype)):
            return out
        found = f"{out.dtype} {shape_text(out.shape)}" + (
            "" if whole else " that is not contiguous, aligned and writable"
        )
    raise ShapeError(
        f"out= for {name!r}: wanted a writable contiguous {spec}, found {found}"
    )
