"""Triton's side of the preprocessor; the logic is in preprocess.py."""

import json
import os
import time
from pathlib import Path

from .decoder import Decoder
from .door import Door, read_mark, refuse_without
from .encoded_image import ImageLimits
from .preprocess import preprocess_batch
from .request import answer_each, read_parameter


class TritonPythonModel:
    """Serves `preprocess_batch`."""

    def initialize(self, args):
        """Read the limits from config.pbtxt, and the image size that the build wrote."""
        os.nice(read_parameter(args["model_config"], "nice", int))
        variant = json.loads(Path(__file__).with_name("variant.json").read_text())
        self.image_size = variant["image_size"]
        self.door = Door()
        self.decoder = Decoder(self.image_size, ImageLimits.read(args["model_config"]))

    def execute(self, requests):
        """Answer a batch of requests."""
        self.mark = read_mark("ram_preprocess")
        began = time.monotonic()
        return self.door.pass_on(
            requests,
            lambda: answer_each(requests, self.answer, began),
            is_last=self.mark is not None,
        )

    def answer(self, inputs):
        """Return the pixels of one request's images."""
        images = inputs["image"][:, 0]
        refuse_without(self.mark, images)
        self.door.require_room()
        return {"pixels": preprocess_batch(images, self.image_size, self.decoder.preprocess)}

    def finalize(self):
        """End the process that decodes."""
        self.decoder.close()
