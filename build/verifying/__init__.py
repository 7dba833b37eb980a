"""Whether what is installed, or served, computes what its checkpoint does in PyTorch."""
