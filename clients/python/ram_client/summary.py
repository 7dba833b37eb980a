"""What a run did, counted: the lines at its end."""

from collections import Counter

from .files import Source
from .tag import Tag

MOST = 5  # reasons
MOST_TAGS = 10


class Summary:
    """Counts pictures as they are done; its memory grows with tags and reasons, not with files."""

    def __init__(self) -> None:
        self.failed = 0
        self._tagged = 0
        self._without = 0
        self._skipped = 0
        self._reasons: Counter[str] = Counter()
        self._tags: Counter[str] = Counter()

    def add(self, tags: list[Tag]) -> None:
        """Count a picture that was tagged."""
        if tags:
            self._tagged += 1
        else:
            self._without += 1
        self._tags.update({tag.name for tag in tags})

    def skip(self) -> None:
        """Count a picture that an earlier run tagged."""
        self._skipped += 1

    def fail(self, error: object, source: Source | str | None = None) -> None:
        """Count a failure, by its message without the name of the picture."""
        self.failed += 1
        self._reasons[str(error).removeprefix(f"{source}: ")] += 1

    def lines(self, seconds: float) -> list[str]:
        """The summary of a run that took so long."""
        done = self._tagged + self._without
        rate = f" ({done / seconds:.3g}/s)" if done and seconds else ""
        counts = [
            f"{self._tagged} tagged",
            f"{self._without} without tags",
            f"{self.failed} failed",
        ]
        if self._skipped:
            counts.append(f"{self._skipped} skipped")
        lines = [f"{', '.join(counts)}, in {seconds:.1f} s{rate}"]
        reasons = self._reasons.most_common(MOST)
        lines += [f"failed: {count} × {reason}" for reason, count in reasons]
        if others := self.failed - sum(count for _, count in reasons):
            lines.append(f"failed: {others} for other reasons")
        if tags := self._tags.most_common(MOST_TAGS):
            lines.append("most frequent: " + ", ".join(f"{name} {count}" for name, count in tags))
        return lines
