"""What runs a graph or a model: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""
