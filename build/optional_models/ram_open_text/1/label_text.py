"""Names to label embeddings: sentences, tokens, their mean, and a memory of earlier names.

This file does not import Triton: the server, the build and the tests run this very file.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from .request import fold, spell

VOWELS = "aeiou"
SENTENCES = 128  # embedded at once; ram_open_text_encoder's plan does not take more

# Tokens and their mask, (sentences, tokens) int32, to embeddings of length 1, (sentences, width).
Encode = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LabelText:
    """Embeds names as RAM's labels were embedded: the mean of many sentences with the name.

    Attributes:
        tokenizer: of the text encoder; truncates, does not pad.
        templates: sentences with `{name}` and, in some, its article `{a}`.
        width: numbers in an embedding.
    """

    tokenizer: Tokenizer
    templates: Sequence[str]
    width: int

    @classmethod
    def load(cls, folder: Path) -> "LabelText":
        """Read `tokenizer.json` and `text_encoder.json`, which the build wrote."""
        settings = json.loads((folder / "text_encoder.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(settings["max_tokens"])
        return cls(tokenizer, settings["templates"], settings["width"])

    def embed(self, names: Sequence[str], encode: Encode) -> np.ndarray:
        """Return (names, width) float32, each of length 1.

        Args:
            names: in the language of the text encoder.
            encode: the text encoder.
        """
        sentences = [text for name in names for text in self.sentences(name)]
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(sentences)]
        embeds = np.empty((len(tokens), self.width), np.float32)
        # Sentences of similar length together, so that there is little padding.
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        for start in range(0, len(order), SENTENCES):
            chosen = order[start : start + SENTENCES]
            embeds[chosen] = encode(*pad([tokens[index] for index in chosen]))
        means = embeds.reshape(len(names), len(self.templates), -1).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def sentences(self, name: str) -> list[str]:
        """Put a name into each template, spelt as for RAM's own labels."""
        name = spell(name).replace("/", " or ")
        article = "an" if name[:1] in VOWELS and name else "a"
        return [template.format(name=name, a=article) for template in self.templates]


class Memory:
    """The embeddings of the names that were used last."""

    def __init__(self, size: int) -> None:
        """Keep the embeddings of at most `size` names."""
        self.size = size
        self.embeds: OrderedDict[str, np.ndarray] = OrderedDict()

    def embed(self, names: Sequence[str], embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        """Return (names, width) float32; `embed` is called for the names that are not kept."""
        keys = [fold(name) for name in names]
        new = {key: name for key, name in zip(keys, names, strict=True) if key not in self.embeds}
        found = dict(zip(new, embed(list(new.values())), strict=True)) if new else {}
        rows = [found[key] if key in found else self.embeds[key] for key in keys]
        for key, row in zip(keys, rows, strict=True):
            self.embeds[key] = row
            self.embeds.move_to_end(key)
        while len(self.embeds) > self.size:
            self.embeds.popitem(last=False)
        return np.stack(rows)


def pad(tokens: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and mask, (sentences, longest) int32; the mask is 0 in padding."""
    shape = len(tokens), max(map(len, tokens))
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, sentence in enumerate(tokens):
        ids[row, : len(sentence)], mask[row, : len(sentence)] = sentence, 1
    return ids, mask
