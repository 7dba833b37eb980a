"""The door of `ram_pixels`: it hands pixels on if there is room, and the server does not end.

Triton itself refuses pixels of another size: by the dims that this file adds to the config.
"""

import json
from pathlib import Path

from .door import MARKED, Door, read_mark, refuse_without
from .request import answer_each

VARIANT = Path(__file__).with_name("variant.json")  # the build writes it


class TritonPythonModel:
    """Returns the pixels of each request again."""

    @staticmethod
    def auto_complete_config(config):
        """Put the model's image size into the config, where clients can read it, too."""
        size = read_image_size()
        for add, name in ((config.add_input, "pixels"), (config.add_output, "passed_pixels")):
            add({"name": name, "data_type": "TYPE_UINT8", "dims": [size, size, 3]})
        return config

    def initialize(self, args):
        """Open the door."""
        self.door = Door()

    def execute(self, requests):
        """Answer a batch of requests."""
        self.mark = read_mark("ram_pixels_check")
        return self.door.pass_on(
            requests, lambda: answer_each(requests, self.answer), is_last=self.mark is not None
        )

    def answer(self, inputs):
        """Return one request's pixels, (B, S, S, 3) uint8."""
        pixels = inputs["pixels"]
        refuse_without(self.mark, [image.reshape(-1)[:MARKED].tobytes() for image in pixels])
        self.door.require_room()
        return {"passed_pixels": pixels}


def read_image_size():
    """Return S, the side of the model's square in pixels."""
    if not VARIANT.is_file():
        raise ValueError(f"{VARIANT} is missing: run 'make model' first")
    return json.loads(VARIANT.read_text())["image_size"]
