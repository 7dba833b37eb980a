"""Triton's side of the postprocessor for a request's own labels; the logic is in open_tags.py."""

from .open_tags import postprocess_open, read_options, require_labels
from .postprocess import Vocabulary, choose_for_maps
from .request import answer_each, decode_texts


class TritonPythonModel:
    """Serves `postprocess_open`."""

    def execute(self, requests):
        """Answer a batch of requests."""
        return answer_each(requests, self.answer)

    def answer(self, inputs):
        """Return the tags of one request's images."""
        logits, in_vocabulary = inputs.pop("logits"), inputs.pop("in_vocabulary")
        names, names_zh = (decode_texts(key, inputs.pop(key)) for key in ("names", "names_zh"))
        labels = Vocabulary(names, names_zh, inputs.pop("thresholds"))
        require_labels(logits, labels, in_vocabulary)
        options = read_options(inputs, len(logits))
        outputs = postprocess_open(logits, labels, in_vocabulary, options)
        return outputs | {"map_ids": choose_for_maps(outputs["tag_ids"])}
