"""What the server answered before the load, and whether a later answer is the same.

Scores differ a little with the batch that an image happens to share, so an answer is right if its
scores lie within the tolerance, and its tags are the expected ones but for those whose score lies
within the tolerance of their threshold (or of the last of the `top_k`): these may appear or not.
"""

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pictures import Picture
from ram_client import InvalidRequest, RamError, Tag
from traffic import Request

Answer = list[list[Tag]] | Exception
MAX_PAIRS = 1000  # a pair's comparison takes a millisecond where tags are many


class WrongAnswer(Exception):
    """The server answered, but not what it answered before."""


class ExpectedError(ValueError):
    """The expected answers cannot be used; the message says why, in one line."""


@dataclass
class Expected:
    """The answers of all pictures to all kinds of requests.

    Attributes:
        tolerance: how far a score may differ.
        thresholds: each tag's own, (N,), or None where the server did not tell.
        scores: of each picture, by its SHA-256, the scores of all N tags.
        answers: of each picture, by its SHA-256, the tags by the label of the kind of request.
        names: of the pictures, by SHA-256.
        labels: what the requests bring whose answers these are; none to the model without.
        open: the answers to requests with labels, None where these are not served.
    """

    tolerance: float
    thresholds: np.ndarray | None
    scores: dict[str, np.ndarray]
    answers: dict[str, dict[str, list[Tag]]]
    names: dict[str, str]
    labels: Sequence[str] = ()
    open: "Expected | None" = None

    def fault(self, request: Request, answer: Answer) -> Exception | None:
        """Return what is wrong with an answer, None if it is right."""
        if request.kind.refused:
            return _fault_of_refusal(answer)
        if isinstance(answer, Exception):
            return answer
        if request.kind.labels and self.open:
            plain = replace(request.kind, name="plain", labels=())
            return self.open.fault(replace(request, kind=plain), answer)
        if len(answer) != len(request.pictures):
            return WrongAnswer(f"{len(answer)} rows for {len(request.pictures)} images")
        for picture, tags in zip(request.pictures, answer, strict=True):
            if problem := self._problem(picture.sha256, request, tags):
                owner = self._owner(request, tags)
                swapped = f"swapped, this is the answer of {owner}" if owner else problem
                return WrongAnswer(f"{picture.name}: {swapped}")
        return None

    def alike(self) -> tuple[int, int]:
        """Count the pairs of pictures whose plain answers pass for each other's, and all pairs.

        Of many pictures `MAX_PAIRS` are drawn.
        """
        pictures = list(self.answers)
        if math.comb(len(pictures), 2) <= MAX_PAIRS:
            pairs = list(itertools.combinations(pictures, 2))
        else:
            draw = random.Random(0).sample
            pairs = [draw(pictures, 2) for _ in range(MAX_PAIRS)]
        plain = {sha256: answers["plain"] for sha256, answers in self.answers.items()}
        return sum(not self._compare(a, "plain", {}, plain[b]) for a, b in pairs), len(pairs)

    def require(self, pictures: Sequence[Picture], kinds: Sequence[str]) -> None:
        """Check that nothing is missing.

        Raises:
            ExpectedError: there is no answer for one of the pictures or kinds.
        """
        for picture in pictures:
            missing = set(kinds) - set(self.answers.get(picture.sha256, ()))
            if missing:
                raise ExpectedError(
                    f"no expected answer to {sorted(missing)[0]!r} for {picture.name}: the "
                    "expectations are of other pictures"
                )

    def _problem(self, sha256: str, request: Request, tags: list[Tag]) -> str | None:
        kind = "plain" if request.kind.images > 1 else request.kind.label
        return self._compare(sha256, kind, request.kind.settings, tags)

    def _owner(self, request: Request, tags: list[Tag]) -> str | None:
        for sha256, name in self.names.items():
            if self._problem(sha256, request, tags) is None:
                return name
        return None

    def _compare(
        self, sha256: str, kind: str, settings: Mapping[str, float], tags: list[Tag]
    ) -> str | None:
        wanted = {tag.id: tag for tag in self.answers[sha256][kind]}
        given = {tag.id: tag for tag in tags}
        if len(given) != len(tags):
            return "a tag stands there twice"
        if any(before.score < after.score for before, after in itertools.pairwise(tags)):
            return "the tags are not in the order of their scores"
        if 0 < settings.get("top_k", 0) < len(tags):
            return "more tags than asked for"
        for tag in tags:
            known = wanted.get(tag.id)
            if known and (known.name, known.name_zh) != (tag.name, tag.name_zh):
                return f"tag {tag.id} is called {tag.name!r} instead of {known.name!r}"
            score = self._score(sha256, tag.id)
            if not abs(tag.score - score) <= self.tolerance:  # so that NaN fails too
                return f"{tag.name!r} has another score"
        for identity in wanted.keys() ^ given.keys():
            if not self._is_near(sha256, identity, settings, list(wanted.values())):
                if identity in wanted:
                    return f"{wanted[identity].name!r} is missing"
                return f"{given[identity].name!r} is too much"
        return None

    def _is_near(
        self, sha256: str, identity: int, settings: Mapping[str, float], wanted: list[Tag]
    ) -> bool:
        """Tell whether rounding may decide if this tag is in the answer."""
        score = self._score(sha256, identity)
        top_k = settings.get("top_k", 0)
        if top_k and len(wanted) >= top_k and abs(score - wanted[-1].score) <= 2 * self.tolerance:
            return True  # both scores may have moved
        threshold = settings.get("threshold")
        if threshold is None:
            threshold = np.inf if self.thresholds is None else self.thresholds[identity]
        return abs(score - threshold) <= self.tolerance

    def _score(self, sha256: str, identity: int) -> float:
        scores = self.scores[sha256]
        return scores[identity] if 0 <= identity < len(scores) else np.inf

    def as_dict(self) -> dict:
        """Return what `from_dict` reads: nothing but JSON's types."""
        return {
            "tolerance": self.tolerance,
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
            "pictures": {
                sha256: {
                    "name": self.names[sha256],
                    "scores": self.scores[sha256].tolist(),
                    "answers": {
                        kind: [asdict(tag) for tag in tags] for kind, tags in answers.items()
                    },
                }
                for sha256, answers in self.answers.items()
            },
            "labels": list(self.labels),
            "open": self.open and self.open.as_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict) -> "Expected":
        """Make it of what `as_dict` returned."""
        thresholds = values["thresholds"]
        pictures = values["pictures"]
        return cls(
            tolerance=values["tolerance"],
            thresholds=None if thresholds is None else np.array(thresholds, np.float32),
            scores={key: np.array(entry["scores"]) for key, entry in pictures.items()},
            answers={
                key: {kind: [Tag(**tag) for tag in tags] for kind, tags in entry["answers"].items()}
                for key, entry in pictures.items()
            },
            names={key: entry["name"] for key, entry in pictures.items()},
            labels=values["labels"],
            open=values["open"] and cls.from_dict(values["open"]),
        )

    def save(self, path: Path) -> None:
        """Write them as JSON, at once or not at all."""
        unfinished = path.with_name(f".{path.name}.unfinished")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(self.as_dict(), ensure_ascii=False), encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, tolerance: float) -> "Expected":
        """Read what `save` wrote, to be compared within another tolerance.

        Raises:
            ExpectedError: the file cannot be read, or is something else.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(values | {"tolerance": tolerance})
        except OSError as error:
            raise ExpectedError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExpectedError(f"{path}: holds no expected answers") from error


def _fault_of_refusal(answer: Answer) -> Exception | None:
    if not isinstance(answer, Exception):
        return WrongAnswer("a broken image was accepted")
    if isinstance(answer, InvalidRequest) and str(answer).startswith("image"):
        return None
    if isinstance(answer, RamError):
        return answer
    return WrongAnswer(f"a broken image ended in {type(answer).__name__}")
