"""A Triton model repository on disk: where its files are, its configs, its manifest."""
