"""ONNX's own test cases against striate: passed, failed, refused, by operator."""
