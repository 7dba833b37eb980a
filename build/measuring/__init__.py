"""Engines against PyTorch on the same device in the same run."""
