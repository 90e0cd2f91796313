"""PyTorch to graphs, one function for each ATen operator.

Programs of `torch.export` come here in process or as a ``.pt2`` file, which is read
without PyTorch. A new operator is one function in `layers`, `elementwise`, `axes`,
`reductions`, `resample`, `recurrent` or `constants`, named and signed like it, and
registered by `registry.aten_op`. What ATen and ONNX mean alike is converted by the
functions of `striate.tools.from_onnx`.
"""

from striate.tools.from_torch.importer import from_torch, operators

__all__ = ["from_torch", "operators"]
