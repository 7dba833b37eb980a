"""Triton's side of the preprocessor; what it does stands in preprocess.py."""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from .preprocess import ImageError, Limits, preprocess_batch


class TritonPythonModel:
    """Serves `preprocess_batch`."""

    def initialize(self, args):
        """Read the limits from config.pbtxt, and the image size that the build wrote."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.limits = Limits(
            **{name: int(parameters[name]["string_value"]) for name in Limits.__annotations__}
        )
        variant = json.loads(Path(__file__).with_name("variant.json").read_text())
        self.image_size = variant["image_size"]

    def execute(self, requests):
        """Answer each request on its own: a bad image fails no neighbour of its batch."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Return the pixels of one request's images, or what is wrong with the request."""
        images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[:, 0]
        try:
            pixels = preprocess_batch(images, self.image_size, self.limits)
        except ImageError as error:
            return failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # one that left `execute` would fail the neighbours too
            return failure(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse([pb_utils.Tensor("pixels", pixels)])


def failure(message, code):
    """Return an error response with one line of text."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
