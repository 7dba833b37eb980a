"""Triton's side of the labels; the logic is in labels.py."""

import time
from pathlib import Path

import numpy as np

from .door import read_mark, refuse_without
from .labels import KnownLabels, LabelLimits, read_chinese_names, read_names, refuse_new
from .request import answer_each, ask_model, read_parameter

TEXT_MODEL = "ram_open_text"
# The build writes this file with the text encoder. Needed until Triton answers a Python model that
# asks for, or infers with, a model that the repository lacks: 24.10 does not.
TEXT_ENCODER = "text_encoder.json"
# Requests take turns at ram_open_text with this many names at once. A request whose client has left
# runs to its end. Needed until Triton reports to an ensemble's step that its request was cancelled:
# 24.10 does not.
NAMES_AT_ONCE = 16


class TritonPythonModel:
    """Serves `KnownLabels.embed`, with ram_open_text for new labels."""

    def initialize(self, args):
        """Read the parameters in config.pbtxt, and the files that the build wrote."""
        config, folder = args["model_config"], Path(__file__).parent
        self.limits = LabelLimits.read(config)
        self.known = KnownLabels.load(folder, read_parameter(config, "default_threshold", float))
        self.embed_new = self.embed if (folder / TEXT_ENCODER).is_file() else refuse_new

    def execute(self, requests):
        """Answer a batch of requests."""
        self.mark = read_mark("ram_open_labels")
        return answer_each(requests, self.answer, time.monotonic())

    def answer(self, inputs):
        """Return the embeddings of one request's labels."""
        refuse_without(self.mark, inputs["image"][:, 0])
        names = read_names(inputs["labels"], self.limits)
        names_zh = read_chinese_names(inputs.get("labels_zh"), len(names), self.limits)
        outputs = self.known.embed(names, names_zh, self.embed_new)
        return outputs | {"passed_image": inputs["image"]}

    def embed(self, names):
        """Have ram_open_text embed new names, a few at a time: (names, width) float32."""
        self.limits.require_few_new(names)
        labels = np.array([name.encode() for name in names], np.object_)
        parts = np.split(labels, range(NAMES_AT_ONCE, len(labels), NAMES_AT_ONCE))
        return np.concatenate(
            [ask_model(TEXT_MODEL, {"labels": part}, "label_embeds") for part in parts]
        )
