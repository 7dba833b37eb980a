"""Tag images with a Recognize Anything Model served by Triton."""
