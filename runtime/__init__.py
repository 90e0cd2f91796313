"""striate runs trained convolutional networks on the CPU, inside Python programs.

>>> import striate
>>> model = striate.load("model.h5")  # doctest: +SKIP
>>> model.classify("cat.jpg")  # doctest: +SKIP
"""

from . import kernels, ops
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
