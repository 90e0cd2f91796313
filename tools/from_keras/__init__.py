"""Keras models to graphs, one function for each layer.

`source` reads ``.keras`` archives and ``.h5`` files of Keras 2 and 3 without Keras,
through `hdf5`, which lets the HDF5 library look at a file only in a process of its own.
A new layer is one function, named and signed like it, registered with the names of its
weights by `registry.keras_layer`; operations of ``keras.ops`` are in `operations`.
`importer` walks the calls.
"""

from striate.tools.from_keras.importer import from_keras
from striate.tools.from_keras.registry import operators

__all__ = ["from_keras", "operators"]
