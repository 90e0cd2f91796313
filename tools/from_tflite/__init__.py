"""TensorFlow Lite files to graphs, read without any of Google's packages.

`flatbuffer` reads the file within bounds, `schema` says what its numbers mean and
`model` what the file says; `operators` says what each operator becomes, and `importer`
walks them.
"""

from striate.tools.from_tflite.importer import from_tflite
from striate.tools.from_tflite.operators import OPERATORS

__all__ = ["from_tflite", "operators"]

operators = OPERATORS.operators
