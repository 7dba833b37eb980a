"""The half-precision pair of graphs: run with real rounding, and held against its limits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ram_triton.engines.onnxruntime import RoundedTagger
from ram_triton.engines.pytorch import run
from ram_triton.errors import GraphError, ParityError
from ram_triton.graphs.half_precision import largest_number
from ram_triton.parity.compare import Agreement, Limits, compare
from ram_triton.repository.layout import NONE
from ram_triton.server_code import Vocabulary

LIMITS = {
    # A logit off by 0.1 moves a score by 0.025 at most, one off by 0.05 by about the 0.01 that
    # RAM's own thresholds are rounded to. F1 leaves room for one flip among a dozen tags: a few
    # pictures show no more.
    "float16": Limits(logit_difference=0.1, flip_distance=0.05, tag_f1=0.95),
    # Three bits fewer round eight times as coarsely.
    "bfloat16": Limits(logit_difference=0.8, flip_distance=0.4, tag_f1=0.9),
}
# Other pictures than those of the check may drive the activations higher.
HEADROOM = 2.0


@dataclass(frozen=True)
class HalfPrecision:
    """What was measured of a half-precision pair, and what is allowed.

    Attributes:
        precision: `float16` or `bfloat16`.
        limits: of the agreement.
        agreement: with PyTorch in float32, on pictures.
        tensor: the half-precision tensor that grew largest.
        largest_activation: its largest magnitude.
    """

    precision: str
    limits: Limits
    agreement: Agreement
    tensor: str
    largest_activation: float

    @property
    def activation_limit(self) -> float:
        """How large an activation may grow."""
        return largest_number(self.precision) / HEADROOM

    def require(self) -> None:
        """Check all figures.

        Raises:
            GraphError: an activation is too large.
            ParityError: the logits or tags differ by more than the limits.
        """
        if not self.largest_activation <= self.activation_limit:  # so that NaN fails too
            raise GraphError(
                f"{self.precision}: an activation reaches {self.largest_activation:.3g} "
                f"({self.tensor}), the limit is {self.activation_limit:.3g}; "
                f"PRECISION=bfloat16 has more room"
            )
        try:
            self.agreement.require(self.limits, f"the {self.precision} graphs")
        except ParityError as error:
            raise ParityError(f"{error}; PRECISION={NONE} builds without them") from None

    def as_dict(self) -> dict:
        """Return limits and figures by name, for the manifest."""
        return {
            "precision": self.precision,
            "limits": asdict(self.limits) | {"largest_activation": self.activation_limit},
            "measured": self.agreement.as_dict()
            | {"largest_activation": self.largest_activation, "tensor": self.tensor},
        }

    def __str__(self) -> str:
        return (
            f"{self.precision}: {self.agreement}; activations reach {self.largest_activation:.3g} "
            f"of {largest_number(self.precision):.3g}"
        )


def measure_pair(
    half: Sequence[Path],
    precision: str,
    batches: Sequence[np.ndarray],
    expected: np.ndarray,
    vocabulary: Vocabulary,
) -> HalfPrecision:
    """Run a half-precision pair with real rounding, and compare it with PyTorch.

    Args:
        half: the encoder's and the head's graph.
        precision: that of the graphs.
        batches: pixels of pictures, (B, size, size, 3) uint8 each.
        expected: the logits that PyTorch computes of them in float32, (images, tags).
        vocabulary: the tags and their thresholds.
    """
    tagger = RoundedTagger(*half)
    agreement = compare(expected, run(tagger, batches), vocabulary)
    return HalfPrecision(precision, LIMITS[precision], agreement, *tagger.largest_activation())
