"""Triton's side of the label texts; the logic is in label_text.py."""

from pathlib import Path

from .label_text import LabelText, Memory
from .request import answer_each, ask_model, decode_texts, read_parameter

ENCODER = "ram_open_text_encoder"


class TritonPythonModel:
    """Serves `LabelText.embed`, with a `Memory` of the names that were embedded before."""

    def initialize(self, args):
        """Read the memory's size from config.pbtxt, and the files that the build wrote."""
        self.memory = Memory(read_parameter(args["model_config"], "cached_names", int))
        self.text = LabelText.load(Path(__file__).parent)

    def execute(self, requests):
        """Answer a batch of requests."""
        return answer_each(requests, self.answer)

    def answer(self, inputs):
        """Return the embeddings of one request's names."""
        names = decode_texts("labels", inputs["labels"])
        embeds = self.memory.embed(names, lambda new: self.text.embed(new, encode))
        return {"label_embeds": embeds}


def encode(input_ids, attention_mask):
    """Have ram_open_text_encoder embed sentences."""
    tensors = {"input_ids": input_ids, "attention_mask": attention_mask}
    return ask_model(ENCODER, tensors, "embeds")
