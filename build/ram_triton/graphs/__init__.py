"""A model's ONNX graphs: float32, half precision, INT8."""
