"""ONNX files to graphs.

`model` reads the file, `importer` walks its nodes, and the functions named after ONNX
operators say what each becomes: `layers` those with weights and windows, `elementwise`
arithmetic and activations, `axes` what moves or cuts, `constants` what only exists
while shapes are computed.
"""
