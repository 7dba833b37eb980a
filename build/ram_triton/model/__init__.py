"""The Recognize Anything Model in PyTorch, and its checkpoints."""
