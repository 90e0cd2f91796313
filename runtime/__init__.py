"""striate runs trained convolutional networks on the CPU, inside Python programs.

>>> import striate
>>> model = striate.load("model.h5")  # doctest: +SKIP
>>> model.classify("cat.jpg")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import kernels

if TYPE_CHECKING:
    from . import ops
    from .errors import (
        DeadlineError,
        DTypeError,
        GraphError,
        ImageError,
        MissingExtraError,
        ModelFormatError,
        NotFiniteError,
        SettingError,
        ShapeError,
        StriateError,
        UnknownLayerError,
        UnsupportedModelError,
    )
    from .graph import Graph, Input, Node
    from .image import Ink, Postprocess, Preprocess, Resize, load_image
    from .model import MemoryPlan, Model, StepProfile, load
    from .model_file import read, save
    from .quantisation import Quantisation
    from .receptive_field import ReceptiveField, receptive_fields
    from .spec import Spec

__all__ = [
    "DTypeError",
    "DeadlineError",
    "Graph",
    "GraphError",
    "ImageError",
    "Ink",
    "Input",
    "MemoryPlan",
    "MissingExtraError",
    "Model",
    "ModelFormatError",
    "Node",
    "NotFiniteError",
    "Postprocess",
    "Preprocess",
    "Quantisation",
    "ReceptiveField",
    "Resize",
    "SettingError",
    "ShapeError",
    "Spec",
    "StepProfile",
    "StriateError",
    "UnknownLayerError",
    "UnsupportedModelError",
    "kernels",
    "load",
    "load_image",
    "ops",
    "read",
    "receptive_fields",
    "save",
]
__version__ = "0.1.0"

FILES = (
    "errors",
    "spec",
    "ops",
    "quantisation",
    "image",
    "graph",
    "model_file",
    "model",
    "receptive_field",
)
"""Imported, lowest first, when a name is asked for that none of those before has."""


def __getattr__(name: str) -> Any:
    if name in FILES:
        return import_module(f"{__name__}.{name}")
    for file in FILES if name in __all__ else ():
        module = import_module(f"{__name__}.{file}")
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *FILES})
