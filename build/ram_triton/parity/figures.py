"""What figures of agreement have in common: they are within their limits, or an error."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass

from ram_triton.errors import ParityError
from ram_triton.parity.limits import Limits


@dataclass(frozen=True)
class Figures(ABC):
    """How far a candidate agrees with a reference, in numbers."""

    @abstractmethod
    def beyond(self, limits: Limits) -> list[str]:
        """Return a phrase for each figure beyond its limit, with both numbers."""

    def require(self, limits: Limits, candidate: str = "the graphs") -> None:
        """Check the figures.

        Raises:
            ParityError: one is beyond its limit; the message starts with `candidate`.
        """
        if problems := self.beyond(limits):
            raise ParityError(f"{candidate} differ from PyTorch: {'; '.join(problems)}")

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name, for the manifest."""
        return asdict(self)
