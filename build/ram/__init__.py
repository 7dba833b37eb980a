"""The Recognize Anything Model: checkpoint → model → ONNX → model repository."""
