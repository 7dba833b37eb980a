"""Text encoders: names to label embeddings, from a checkpoint to two models of the repository."""
