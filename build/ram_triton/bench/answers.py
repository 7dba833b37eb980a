"""What is right: logits of each picture, and the tags that follow from them.

Before anything is timed, what each way answers to every picture alone is held to PyTorch's logits.
What it answers while it is timed is then compared with that, far more closely.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ram_triton.errors import ParityError
from ram_triton.parity.compare import FLOAT32, Agreement, Limits, compare
from ram_triton.server_code import Vocabulary, sigmoid

# Of what a precision may differ by from PyTorch: an image's neighbours in a batch change rounding.
NEIGHBOURS = 0.1
ROUNDING = 1e-5  # of a score: the server's numpy may round it otherwise than ours


@dataclass(frozen=True)
class Reference:
    """The answers that something that is timed has to give.

    Attributes:
        logits: of each picture, (pictures, tags) float32.
        vocabulary: the tags and their thresholds.
        tolerance: what a logit may differ by.
    """

    logits: np.ndarray
    vocabulary: Vocabulary
    tolerance: float = FLOAT32.logit_difference

    def compare(self, logits: np.ndarray) -> Agreement:
        """Say how far logits of all pictures, in order, agree."""
        return compare(self.logits, logits, self.vocabulary)

    def accept(self, way: str, logits: np.ndarray, limits: Limits) -> "Reference":
        """Check what a way answers to each picture alone, and hold it to that from then on.

        Args:
            way: what has answered.
            logits: of all pictures, in order.
            limits: what its precision may differ by.

        Raises:
            ParityError: there is another number of tags, or a logit differs by more than the limit;
                the message starts with `way`.
        """
        if logits.shape != self.logits.shape:
            raise ParityError(
                f"{way}: answers with {logits.shape[1]} tags, the repository has "
                f"{self.logits.shape[1]}: give the REPOSITORY that the server serves"
            )
        _require(way, self.logits, logits, limits.logit_difference)
        tolerance = max(self.tolerance, NEIGHBOURS * limits.logit_difference)
        return replace(self, logits=logits, tolerance=tolerance)

    def check_logits(self, way: str, pictures: Sequence[int], logits: np.ndarray) -> None:
        """Check an engine's answer.

        Raises:
            ParityError: a logit differs by more than the tolerance; the message starts with `way`.
        """
        _require(way, self.logits[list(pictures)], logits, self.tolerance)

    def check_tags(
        self, way: str, pictures: Sequence[int], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Check the server's answer: ids, scores and names of the tags.

        Args:
            way: what has answered.
            pictures: number of the picture of each row.
            outputs: `tags`, `scores`, `tag_ids` and `count`, as the ensemble gives them.

        Raises:
            ParityError: a tag has another score or name, is missing or too much.
        """
        names, _ = self.vocabulary.encoded
        for row, picture in enumerate(pictures):
            count = outputs["count"][row, 0]
            ids = outputs["tag_ids"][row, :count]
            if len(set(ids.tolist()) & set(range(len(names)))) < count:
                raise ParityError(f"{way}: a wrong answer: a tag twice, or one that there is not")
            problem = self._problem(picture, ids, outputs["scores"][row, :count])
            if not problem and (names[ids] != outputs["tags"][row, :count]).any():
                problem = "a tag has another name"
            if problem:
                raise ParityError(f"{way}: a wrong answer: {problem}")

    def _problem(self, picture: int, ids: np.ndarray, scores: np.ndarray) -> str:
        """Say what is wrong with one picture's tags; empty if nothing is."""
        lowest = sigmoid(self.logits[picture] - self.tolerance) - ROUNDING
        highest = sigmoid(self.logits[picture] + self.tolerance) + ROUNDING
        if not np.all((lowest[ids] <= scores) & (scores <= highest[ids])):
            return "a tag has another score"
        chosen = np.zeros(len(lowest), bool)
        chosen[ids] = True
        # Those near their threshold may be there or not.
        thresholds = self.vocabulary.thresholds
        wrong = np.where(chosen, highest <= thresholds, lowest > thresholds)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            problem = "is too much" if chosen[first] else "is missing"
            return f"'{self.vocabulary.tags[first]}' {problem}"
        return ""


def _require(way: str, expected: np.ndarray, logits: np.ndarray, limit: float) -> None:
    difference = np.abs(expected - logits).max()
    if not difference <= limit:  # so that NaN fails too
        raise ParityError(
            f"{way}: a wrong answer: a logit is off by {difference:.3g}, the limit is {limit:g}"
        )
