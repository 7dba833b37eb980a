"""Whether graphs, plans and servers compute what the checkpoint does in PyTorch."""
