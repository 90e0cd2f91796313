"""Graphs to ONNX.

`model` walks a graph and writes the file, `exporter` remembers how the axes of tensors
lie, and the functions in the other modules say what each operator becomes: `layers`
those with weights and windows, `windows` those that ONNX lacks or that have indices,
`normalise` normalisation, `elementwise` arithmetic and activations, `axes` what moves,
cuts or reduces, `data` what picks, sorts or scatters, `resample` what changes the
resolution, `quantised` small whole numbers, `recurrent` what
walks along sequences.
"""
