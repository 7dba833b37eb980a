"""What is right: PyTorch's logits of each picture, and the tags that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ram.agreement import Agreement, Limits, compare
from ram.served import Vocabulary, sigmoid

# A sigmoid is nowhere steeper than this.
SLOPE = 0.25


class WrongAnswer(ValueError):
    """Something that was timed gave another answer than PyTorch."""


@dataclass(frozen=True)
class Reference:
    """The answers that all that is timed has to give.

    Attributes:
        logits: of each picture, (pictures, tags) float32.
        vocabulary: the tags and their thresholds.
        limits: what an answer may differ by.
    """

    logits: np.ndarray
    vocabulary: Vocabulary
    limits: Limits

    def compare(self, logits: np.ndarray) -> Agreement:
        """Say how far logits of all pictures, in order, agree."""
        return compare(self.logits, logits, self.vocabulary)

    def check_logits(self, way: str, pictures: Sequence[int], logits: np.ndarray) -> None:
        """Check an engine's answer.

        Raises:
            WrongAnswer: a logit differs by more than the limit; the message starts with `way`.
        """
        difference = np.abs(self.logits[list(pictures)] - logits).max()
        if not difference <= self.limits.logit_difference:  # so that NaN fails too
            raise WrongAnswer(
                f"{way}: a wrong answer: a logit is off by {difference:.3g}, the limit is "
                f"{self.limits.logit_difference:g}"
            )

    def check_tags(
        self, way: str, pictures: Sequence[int], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Check the server's answer: ids, scores and names of the tags.

        Args:
            way: what has answered.
            pictures: number of the picture of each row.
            outputs: `tags`, `scores`, `tag_ids` and `count`, as the ensemble gives them.

        Raises:
            WrongAnswer: a tag has another score or name, is missing or too much.
        """
        names, _ = self.vocabulary.encoded
        for row, picture in enumerate(pictures):
            count = outputs["count"][row, 0]
            ids = outputs["tag_ids"][row, :count]
            if len(set(ids.tolist()) & set(range(len(names)))) < count:
                raise WrongAnswer(f"{way}: a wrong answer: a tag twice, or one that there is not")
            problem = self._problem(picture, ids, outputs["scores"][row, :count])
            if not problem and (names[ids] != outputs["tags"][row, :count]).any():
                problem = "a tag has another name"
            if problem:
                raise WrongAnswer(f"{way}: a wrong answer: {problem}")

    def _problem(self, picture: int, ids: np.ndarray, scores: np.ndarray) -> str:
        """Say what is wrong with one picture's tags; empty if nothing is."""
        expected, tolerance = sigmoid(self.logits[picture]), SLOPE * self.limits.logit_difference
        if not np.all(np.abs(expected[ids] - scores) <= tolerance):
            return "a tag has another score"
        chosen = np.zeros(len(expected), bool)
        chosen[ids] = True
        distance = expected - self.vocabulary.thresholds
        # Those near their threshold may be there or not.
        flipped = (chosen != (distance > 0)) & (np.abs(distance) > tolerance)
        if flipped.any():
            first = self.vocabulary.tags[int(np.flatnonzero(flipped)[0])]
            return f"'{first}' {'is too much' if chosen[flipped][0] else 'is missing'}"
        return ""
