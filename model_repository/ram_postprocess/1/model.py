"""Triton's side of the postprocessor; what it does stands in postprocess.py."""

from pathlib import Path

import triton_python_backend_utils as pb_utils

from .postprocess import Options, RequestError, Vocabulary, postprocess


class TritonPythonModel:
    """Serves `postprocess`."""

    def initialize(self, args):
        """Load the vocabulary that the build put beside this file."""
        self.vocabulary = Vocabulary.load(Path(__file__).with_name("vocabulary.json"))

    def execute(self, requests):
        """Answer each request on its own: an error stays with the request that has it."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Return the tags of one request's images, or what is wrong with the request."""
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        logits = inputs.pop("logits")
        try:
            options = Options.read(inputs, len(logits))
            outputs = postprocess(logits, self.vocabulary, options) | {"passed_logits": logits}
        except RequestError as error:
            return failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # one that left `execute` would fail the neighbours too
            return failure(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def failure(message, code):
    """Return an error response with one line of text."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
