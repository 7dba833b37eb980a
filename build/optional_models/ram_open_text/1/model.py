"""Triton's side of the label texts; what it does stands in label_text.py."""

import json
from pathlib import Path

import triton_python_backend_utils as pb_utils

from .label_text import LabelText, Memory

ENCODER = "ram_open_text_encoder"


class TritonPythonModel:
    """Serves `LabelText.embed`, with what was asked before from a `Memory`."""

    def initialize(self, args):
        """Read the memory's size from config.pbtxt, and what the build wrote."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.memory = Memory(int(parameters["cached_names"]["string_value"]))
        self.text = LabelText.load(Path(__file__).parent)

    def execute(self, requests):
        """Answer each request on its own: an error stays with the request that has it."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Return the embeddings of one request's names, or what went wrong."""
        labels = pb_utils.get_input_tensor_by_name(request, "labels").as_numpy()
        try:
            names = [label.decode() for label in labels]
            embeds = self.memory.embed(names, lambda new: self.text.embed(new, encode))
        except Exception as error:  # one that left `execute` would fail the neighbours too
            failure = pb_utils.TritonError(f"{type(error).__name__}: {error}")
            return pb_utils.InferenceResponse(error=failure)
        return pb_utils.InferenceResponse([pb_utils.Tensor("label_embeds", embeds)])


def encode(input_ids, attention_mask):
    """Have ram_open_text_encoder embed sentences."""
    tensors = {"input_ids": input_ids, "attention_mask": attention_mask}
    response = pb_utils.InferenceRequest(
        model_name=ENCODER,
        inputs=[pb_utils.Tensor(name, array) for name, array in tensors.items()],
        requested_output_names=["embeds"],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    ).exec()
    if response.has_error():
        raise RuntimeError(f"{ENCODER}: {response.error().message()}")
    return pb_utils.get_output_tensor_by_name(response, "embeds").as_numpy()
