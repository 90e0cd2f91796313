"""Graphs to ONNX.

`exporter` keeps track of tensors and how their axes lie; `elementwise`, `layers`,
`axes` and the other modules hold a function for each operator; `model` does the whole.
"""
