"""Triton's side of the labels; what it does stands in labels.py."""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from .labels import (
    KnownLabels,
    Limits,
    RequestError,
    read_chinese_names,
    read_names,
    refuse,
    require_few_new,
)

TEXT_MODEL = "ram_open_text"
# The build writes it with the text encoder. Asking Triton whether a model is there is no way out:
# 24.10 does not answer a Python model that asks, or infers with, one that the repository lacks.
TEXT_ENCODER = "text_encoder.json"
# Asked for at once: requests take turns at ram_open_text. One whose client has left goes on to its
# end: 24.10 does not tell an ensemble's step that the request was cancelled (seen).
NAMES_AT_ONCE = 16


class TritonPythonModel:
    """Serves `KnownLabels.embed`, with ram_open_text for the labels that are not known."""

    def initialize(self, args):
        """Read the limits from config.pbtxt, and what the build wrote."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        given = [name for name in Limits.__annotations__ if name in values]
        self.limits = Limits(**{name: int(values[name]) for name in given})
        folder = Path(__file__).parent
        self.known = KnownLabels.load(folder, float(values["default_threshold"]))
        self.embed_others = self.embed if (folder / TEXT_ENCODER).is_file() else refuse

    def execute(self, requests):
        """Answer each request on its own: an error stays with the request that has it."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Return the embeddings of one request's labels, or what is wrong with the request."""
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            names = read_names(inputs["labels"], self.limits)
            names_zh = read_chinese_names(inputs.get("labels_zh"), len(names), self.limits)
            outputs = self.known.embed(names, names_zh, self.embed_others)
            outputs["passed_image"] = inputs["image"]
        except RequestError as error:
            return failure(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # one that left `execute` would fail the neighbours too
            return failure(f"{type(error).__name__}: {error}", pb_utils.TritonError.INTERNAL)
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def embed(self, names):
        """Have ram_open_text embed new names, some at a time: (names, width) float32."""
        require_few_new(names, self.limits)
        starts = range(0, len(names), NAMES_AT_ONCE)
        return np.concatenate([embed_text(names[at : at + NAMES_AT_ONCE]) for at in starts])


def embed_text(names):
    """Have ram_open_text embed names: (names, width) float32."""
    labels = np.array([name.encode() for name in names], np.object_)
    response = pb_utils.InferenceRequest(
        model_name=TEXT_MODEL,
        inputs=[pb_utils.Tensor("labels", labels)],
        requested_output_names=["label_embeds"],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    ).exec()
    if response.has_error():
        error = response.error()
        invalid = error.code() == pb_utils.TritonError.INVALID_ARG
        raise (RequestError if invalid else RuntimeError)(error.message())
    return pb_utils.get_output_tensor_by_name(response, "label_embeds").as_numpy()


def failure(message, code):
    """Return an error response with one line of text."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
