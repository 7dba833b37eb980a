"""Triton's side of the postprocessor of open labels; what it does stands in open_tags.py."""

import triton_python_backend_utils as pb_utils

from .open_tags import postprocess_open, read_options
from .postprocess import RequestError, Vocabulary


class TritonPythonModel:
    """Serves `postprocess_open`."""

    def execute(self, requests):
        """Answer each request on its own: an error stays with the request that has it."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Return the tags of one request's images, or what is wrong with the request."""
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        logits, in_vocabulary = inputs.pop("logits"), inputs.pop("in_vocabulary")
        names, names_zh = (
            [name.decode() for name in inputs.pop(key)] for key in ("names", "names_zh")
        )
        labels = Vocabulary(names, names_zh, inputs.pop("thresholds"))
        try:
            options = read_options(inputs, len(logits))
            outputs = postprocess_open(logits, labels, in_vocabulary, options)
        except RequestError as error:
            return failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # one that left `execute` would fail the neighbours too
            return failure(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def failure(message, code):
    """Return an error response with one line of text."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
