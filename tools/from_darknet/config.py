"""Darknet configurations as plain values: sections and their options."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.errors import ModelFormatError, UnsupportedModelError

LARGEST_FILE = 1 << 24
"""The most bytes a configuration may have."""

MOST = (1 << 31) - 1
"""The largest whole number an option may be."""

IGNORED = frozenset(
    (
        *("learning_rate", "momentum", "decay", "burn_in", "policy", "steps", "scales"),
        *("jitter", "ignore_thresh", "truth_thresh", "random", "rescore", "thresh"),
        *("object_scale", "noobject_scale", "class_scale", "coord_scale", "absolute"),
        *("bias_match", "iou_loss", "iou_normalizer", "cls_normalizer", "nms_kind"),
        *("beta_nms", "iou_thresh", "max_delta", "resize", "max", "num", "type"),
        *("obj_normalizer", "delta_normalizer", "uc_normalizer", "label_smooth_eps"),
        *("counters_per_class", "focal_loss", "stopbackward", "burnin_update"),
        *("train_only_bn", "dontload", "learning_rate_scale", "angle", "probability"),
        *("iou_thresh_kind", "objectness_smooth", "scale", "smooth", "ignore", "cost"),
        *("noobj", "sse", "sqrt", "forced", "side", "nms_threshold", "dropblock"),
        *("dropblock_size_rel", "dropblock_size_abs", "wait_stream", "noloss", "save"),
        *("show_details", "track_history_size", "sim_thresh", "dets_for_track"),
        *("dets_for_show", "track_ciou_norm", "ema_alpha", "assisted_excitation"),
        *("metric", "detection", "keep_delta_score", "equidistant_point", "weight"),
    )
)
"""Options that say how to train, or how to draw what was found."""

REFUSED = frozenset(
    (
        *("xnor", "binary", "bin_output", "share_index", "antialiasing", "deform"),
        *("sway", "rotate", "stretch", "stretch_sway", "dontloadscales", "tree"),
        *("map", "weights_type", "weights_normalization", "embedding_layer"),
        *("softmax_tree", "use_hierarchy", "coordconv", "scale_wh", "steps_rnn"),
    )
)
"""Options that change what is computed in a way that has no equal here."""

OFF = ("0", "none", "0.0")
"""What turns an option off."""


@dataclass
class Section:
    """A section of a configuration.

    Parameters
    ----------
    kind : str
        What its brackets hold: ``"convolutional"``.
    line : int
        Where it begins, from one.
    options : dict
        Text by name, of a name given twice the first, as Darknet reads it.
    """

    kind: str
    line: int
    options: dict[str, str] = field(default_factory=dict)


def read_config(path: Path) -> list[Section]:
    """Return the sections of a configuration; the first one is about the network.

    Raises
    ------
    ModelFormatError
        If it is not a Darknet configuration.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise refused(path, f"{size} bytes, wanted a text of at most {LARGEST_FILE}")
    text = path.read_bytes().decode("utf-8", "replace")
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = "".join(line.split())
        if not stripped or stripped[0] in "#;":
            continue
        if stripped[0] == "[":
            sections.append(Section(stripped.strip("[]"), number))
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not sections:
            wanted = "a [section]" if not sections else "name=value"
            raise refused(path, f"line {number}: found {line[:40]!r}, wanted {wanted}")
        sections[-1].options.setdefault(name, value.partition("#")[0])
    if not sections or sections[0].kind not in ("net", "network"):
        found = f"[{sections[0].kind[:40]}]" if sections else "no section"
        raise refused(path, f"it begins with {found}, wanted [net]")
    if len(sections) < 2:
        raise refused(path, "it has no layers")
    return sections


def refused(path: Path, message: str, code: str = "not_darknet") -> ModelFormatError:
    """Return the refusal of a file."""
    return ModelFormatError(message, code=code, path=str(path))


def settings(
    section: Section, function: Callable[..., Any], note: Callable[[str], None]
) -> Mapping[str, Any]:
    """Return the options of a section as the keywords of a function.

    Each is read as the function's annotation says; a name that Python reserves ends in
    an underscore. What only matters for training is
    left out; `note` is told of what is known neither to the function nor to Darknet.

    Raises
    ------
    UnsupportedModelError
        On an option that is no number where one is wanted, or changes the result in a
        way that the function does not know.
    """
    wanted = {
        p.name: str(p.annotation).removesuffix(" | None")
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    found = {}
    for name, text in section.options.items():
        key = f"{name}_" if keyword.iskeyword(name) else name
        if key in wanted:
            found[key] = _read(name, text, wanted[key])
        elif name in REFUSED and text not in OFF:
            raise UnsupportedModelError(f"{name}={text[:40]}")
        elif name not in IGNORED and name not in REFUSED:
            note(f"[{section.kind}] has an option {name[:40]!r} that is ignored")
    return found


def _read(name: str, text: str, kind: str) -> Any:
    if kind == "str":
        return text
    if kind in ("Ints", "Floats"):
        parts = [part for part in text.split(",") if part]
        single = kind.removesuffix("s").lower()
        return tuple(_read(name, part, single) for part in parts)
    try:
        number = float(text)
        if not math.isfinite(number) or abs(number) > MOST:
            raise ValueError
        return int(number) if kind in ("int", "Int") else number
    except ValueError:
        raise UnsupportedModelError(
            f"{name}={text[:40]}, wanted a number up to {MOST}"
        ) from None
