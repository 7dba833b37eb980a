"""Triton's side of the preprocessor; the logic is in preprocess.py."""

import json
from pathlib import Path

from .encoded_image import ImageLimits
from .preprocess import preprocess_batch
from .request import answer_each


class TritonPythonModel:
    """Serves `preprocess_batch`."""

    def initialize(self, args):
        """Read the limits from config.pbtxt, and the image size that the build wrote."""
        self.limits = ImageLimits.read(args["model_config"])
        variant = json.loads(Path(__file__).with_name("variant.json").read_text())
        self.image_size = variant["image_size"]

    def execute(self, requests):
        """Answer a batch of requests."""
        return answer_each(requests, self.answer)

    def answer(self, inputs):
        """Return the pixels of one request's images."""
        return {"pixels": preprocess_batch(inputs["image"][:, 0], self.image_size, self.limits)}
