"""Triton's side of the postprocessor; the logic is in postprocess.py."""

from pathlib import Path

from .postprocess import TagOptions, Vocabulary, choose_for_maps, postprocess
from .request import answer_each


class TritonPythonModel:
    """Serves `postprocess`."""

    def initialize(self, args):
        """Load the vocabulary that the build wrote beside this file."""
        self.vocabulary = Vocabulary.load(Path(__file__).with_name("vocabulary.json"))

    def execute(self, requests):
        """Answer a batch of requests."""
        return answer_each(requests, self.answer)

    def answer(self, inputs):
        """Return the tags of one request's images."""
        logits = inputs.pop("logits")
        options = TagOptions.read(inputs, len(logits))
        outputs = postprocess(logits, self.vocabulary, options)
        map_ids = choose_for_maps(outputs["tag_ids"])
        return outputs | {"passed_logits": logits, "map_ids": map_ids}
