"""Caffe networks to graphs: a description as text, and weights.

`text` and `striate.tools.protobuf_wire` take the two files apart, `schema` says what
their fields are called and `model` what they mean; `layers` and `detection` say what
each layer becomes, and `importer` walks them.
"""

from striate.tools.from_caffe.importer import from_caffe
from striate.tools.from_caffe.layers import LAYERS

__all__ = ["from_caffe", "operators"]

operators = LAYERS.operators
