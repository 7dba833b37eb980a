"""The right answers: taken from the server before the load, and compared with those under load.

Scores differ a little with the other images of a batch, so an answer is right if its scores are
within the tolerance; `ram_triton.parity.answers` has the rule for its tags.
"""

import itertools
import json
import math
import random
import re
import statistics
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gevent.lock import RLock
from ram_client import InvalidRequest, RamError, Tag
from ram_triton.errors import LoadError
from ram_triton.files import write_atomically
from ram_triton.parity.answers import Bounds, find_wrong_tag
from ram_triton.repository.layout import PROJECT, VOCABULARY
from ram_triton.server_code import Vocabulary

from ram_load.report import say
from ram_load.traffic import Kind, Picture, Request, find_pictures, make_kinds
from ram_load.transports import GrpcTransport, ask_thresholds, require_server, serves_labels

Answer = list[list[Tag]] | Exception
DEFAULT_FILE = PROJECT / "runs" / "load" / "expected.json"
MAX_PAIRS = 1000  # a pair's comparison takes a millisecond if there are many tags
DECIMALS = re.compile(r"\d+\.\d+")
PRINT_INTERVAL = 5.0  # seconds
PLAIN, ALL = Kind("plain"), Kind("all tags", threshold=0.0)
# The options that the answers depend on.
SETTINGS = ("host", "grpc_server", "images", "labels", "tolerance", "expected", "repository")


class WrongAnswer(LoadError):
    """The server's answer is not the one that it gave before."""


class Expected:
    """The scores of all pictures, and what follows from them.

    Args:
        values: `tags`, `tags_zh` and `thresholds` of the vocabulary, and `pictures`: by SHA-256
            the picture's `name`, the `scores` of all tags, and the `label_scores` of the labels
            that requests bring, which are the vocabulary's first tags; none if the server takes
            no labels. Plain lists and texts, for JSON and for locust's messages.
        tolerance: how far a score may differ.
    """

    def __init__(self, values: dict[str, Any], tolerance: float) -> None:
        self.values = values
        self._pictures: dict[str, Any] = values["pictures"]
        self._first_texts: dict[str, str] = {}
        # By whether the request brings labels: the tags, and the bounds of each picture's scores.
        self._judges: list[tuple[Vocabulary, dict[str, Bounds]]] = []
        for key in ("scores", "label_scores"):
            scores = {sha256: np.array(entry[key]) for sha256, entry in self._pictures.items()}
            count = len(next(iter(scores.values()), ()))
            tags, tags_zh, thresholds = (
                values[name][:count] for name in ("tags", "tags_zh", "thresholds")
            )
            vocabulary = Vocabulary(tags, tags_zh, np.array(thresholds, np.float32))
            bounds = {name: Bounds.of_scores(row, tolerance) for name, row in scores.items()}
            self._judges.append((vocabulary, bounds))

    @property
    def labels(self) -> Sequence[str]:
        """What requests bring that bring labels; empty if the server takes none."""
        return self._judges[True][0].tags

    def find_fault(self, request: Request, answer: Answer) -> Exception | None:
        """Return what is wrong with an answer, or None if it is right."""
        if request.kind.is_refused:
            return _find_fault_of_refusal(answer)
        if isinstance(answer, Exception):
            return answer
        if len(answer) != len(request.pictures):
            return WrongAnswer(f"{len(answer)} rows for {len(request.pictures)} images")
        for picture, tags in zip(request.pictures, answer, strict=True):
            if problem := self._find_problem(picture.sha256, request.kind, tags):
                owner = self._find_owner(request.kind, tags)
                swapped = f"swapped, this is the answer of {owner}" if owner else problem
                text = f"{picture.name}: {swapped}"
                # Locust has a row per text, and a row per score would fill its tables: the first of
                # the texts that differ only in their scores is the text of them all.
                return WrongAnswer(self._first_texts.setdefault(DECIMALS.sub("", text), text))
        return None

    def count_alike(self) -> tuple[int, int]:
        """Count the pairs of pictures whose plain answers pass for each other's, and all pairs.

        If there are many pictures, `MAX_PAIRS` pairs are drawn.
        """
        answers = {sha256: self._plain_answer(sha256) for sha256 in self._pictures}
        pairs: list[Sequence[str]] = []
        if math.comb(len(answers), 2) <= MAX_PAIRS:
            pairs += itertools.combinations(answers, 2)
        else:
            draw = random.Random(0).sample
            pairs += (draw(list(answers), 2) for _ in range(MAX_PAIRS))
        return sum(not self._find_problem(a, PLAIN, answers[b]) for a, b in pairs), len(pairs)

    def require(self, pictures: Iterable[Picture]) -> None:
        """Check that there are scores of all pictures; raises a LoadError otherwise."""
        for picture in pictures:
            if picture.sha256 not in self._pictures:
                raise LoadError(
                    f"{picture.name}: has no expected answer: the answers are of other pictures"
                )

    def save(self, path: Path) -> None:
        """Write them as JSON; raises a LoadError if the file cannot be written."""
        try:
            write_atomically(path, json.dumps(self.values, ensure_ascii=False))
        except OSError as error:
            raise LoadError(f"{path}: cannot be written ({error.strerror})") from error

    @classmethod
    def load(cls, path: Path, tolerance: float) -> "Expected":
        """Read what `save` wrote; raises a LoadError if the file has other contents."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")), tolerance)
        except OSError as error:
            raise LoadError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(f"{path}: contains no expected answers") from error

    def _find_problem(self, sha256: str, kind: Kind, tags: list[Tag]) -> str | None:
        vocabulary, bounds = self._judges[bool(kind.labels)]
        return find_wrong_tag(tags, bounds[sha256], vocabulary, kind.options)

    def _find_owner(self, kind: Kind, tags: list[Tag]) -> str | None:
        for sha256, entry in self._pictures.items():
            if self._find_problem(sha256, kind, tags) is None:
                return str(entry["name"])
        return None

    def _plain_answer(self, sha256: str) -> list[Tag]:
        vocabulary, _ = self._judges[False]
        scores = np.array(self._pictures[sha256]["scores"], np.float32)
        ids = np.flatnonzero(scores > vocabulary.thresholds)
        return [
            Tag(vocabulary.tags[id], vocabulary.tags_zh[id], float(scores[id]), id)
            for id in ids[np.argsort(-scores[ids], kind="stable")].tolist()
        ]


def _find_fault_of_refusal(answer: Answer) -> Exception | None:
    if isinstance(answer, InvalidRequest) and str(answer).startswith("image"):
        return None
    if isinstance(answer, RamError):
        return answer
    is_error = isinstance(answer, Exception)
    end = f"ended in {type(answer).__name__}" if is_error else "was accepted"
    return WrongAnswer(f"a broken image {end}")


class Rehearsal:
    """Sends each picture alone in each kind of request, before the load.

    Args:
        options: of the load test.

    Attributes:
        latencies: of the requests so far, in seconds.
    """

    def __init__(self, options: Namespace) -> None:
        self.latencies: list[float] = []
        self._options = options
        self._transport = GrpcTransport(options.grpc_server, options.timeout)
        self._printed = time.perf_counter()

    def run(self, pictures: Sequence[Picture], broken: Sequence[Picture]) -> Expected:
        """Take the scores of the pictures that later answers are compared with.

        Raises:
            LoadError: a picture is refused, a broken one is accepted, or answers contradict each
                other even without any load.
        """
        options = self._options
        every = {picture: self._tag(picture, ALL) for picture in pictures}
        vocabulary = self._find_vocabulary(every)
        tags = list(vocabulary.tags)
        labels = list(itertools.takewhile(bool, tags[: options.labels]))
        if not serves_labels(options.grpc_server):
            labels = []
        entries = {}
        for picture, found in every.items():
            of_labels = self._tag(picture, replace(ALL, labels=labels)) if labels else []
            entries[picture.sha256] = {
                "name": picture.name,
                "scores": _scores_of(found, len(tags)),
                "label_scores": _scores_of(of_labels, len(labels)),
            }
        values = {
            "tags": tags,
            "tags_zh": list(vocabulary.tags_zh),
            "thresholds": vocabulary.thresholds.tolist(),
            "pictures": entries,
        }
        expected = Expected(values, options.tolerance)
        for kind in make_kinds(options, labels).values():
            if kind.images > 1:
                continue
            for picture in broken if kind.is_refused else pictures:
                answer = self._ask(picture, kind)
                if fault := expected.find_fault(Request(kind, [picture]), answer):
                    text = f"before any load: {kind.label}, {picture.name}: {fault}"
                    raise LoadError(text) from fault
        return expected

    def _ask(self, picture: Picture, kind: Kind) -> Answer:
        began = time.perf_counter()
        try:
            answer: Answer = self._transport.tag([picture.data], kind)
        except RamError as error:
            answer = error
        now = time.perf_counter()
        self.latencies.append(now - began)
        if now - self._printed >= PRINT_INTERVAL:
            self._printed = now
            seconds = statistics.median(self.latencies)
            say(f"{len(self.latencies)} answers, {seconds:.2f} s per answer")
        return answer

    def _tag(self, picture: Picture, kind: Kind) -> list[Tag]:
        answer = self._ask(picture, kind)
        if isinstance(answer, Exception):
            raise LoadError(f"before any load: {picture.name}: {answer}") from answer
        return answer[0]

    def _find_vocabulary(self, every: dict[Picture, list[Tag]]) -> Vocabulary:
        """Read the vocabulary of --repository, or ask the server for its tags' thresholds."""
        named = {tag.id: tag for found in every.values() for tag in found}
        if self._options.repository:
            path = Path(self._options.repository) / VOCABULARY
            try:
                read = Vocabulary.load(path)
            except OSError as error:
                raise LoadError(f"{path}: {error.strerror}") from error
            except (ValueError, KeyError, TypeError) as error:
                raise LoadError(f"{path}: is not a vocabulary") from error
            for id, tag in named.items():
                if id >= len(read.tags) or read.tags[id] != tag.name:
                    raise LoadError(
                        f"{path}: has no tag {id} '{tag.name}', which the server has: give the "
                        "--repository that is served"
                    )
            return read
        count = 1 + max(named, default=-1)
        # A tag whose score is 0 for all pictures is in no answer, and stays without a name.
        tags = [named.get(id, Tag("", "", 0, id)) for id in range(count)]
        thresholds = np.full(count, np.nan, np.float32)
        known = sorted(named)
        names = [named[id].name for id in known]
        asked = ask_thresholds(self._options.grpc_server, names, self._options.timeout)
        if asked is None:
            say(
                "ram_open_labels does not answer with the tags' thresholds; they are guessed from "
                "the answers: --repository DIR reads them instead"
            )
            plain = [_scores_of(self._tag(picture, PLAIN), count) for picture in every]
            scores = np.array([_scores_of(found, count) for found in every.values()])
            thresholds[:] = guess_thresholds(scores, np.array(plain) > 0)
        else:
            thresholds[known] = asked
        return Vocabulary([tag.name for tag in tags], [tag.name_zh for tag in tags], thresholds)


def guess_thresholds(
    scores: npt.NDArray[np.float64], are_there: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Take what is halfway between the scores of a tag in plain answers with and without it.

    Args:
        scores: of pictures, (pictures, tags).
        are_there: whether the tag is in the picture's plain answer, (pictures, tags).
    """
    lowest = np.where(are_there, scores, 1).min(axis=0)
    highest = np.where(are_there, 0, scores).max(axis=0)
    return np.asarray((lowest + highest) / 2)


def _scores_of(tags: Iterable[Tag], count: int) -> list[float]:
    """Return the scores of all tags, 0 of those that are not among these."""
    scores = [0.0] * count
    for tag in tags:
        if 0 <= tag.id < count:  # the judge reports others
            scores[tag.id] = tag.score
    return scores


_prepared: dict[tuple[object, ...], Expected] = {}
_preparing = RLock()


def prepare(options: Namespace, needs_http: bool) -> Expected:
    """Read the expected answers, or ask the server for them, as --expected says.

    They are taken once for all tests of a process that need the same.

    Raises:
        LoadError: there is no server, there are no pictures, or its answers cannot be used.
    """
    with _preparing:
        settings = tuple(getattr(options, name) for name in SETTINGS)
        if settings not in _prepared:
            url = options.host if needs_http else None
            require_server(options.grpc_server, url, options.timeout)
            _prepared[settings] = _find_expected(copy(options))
        return _prepared[settings]


def _find_expected(options: Namespace) -> Expected:
    path = Path(options.expected or DEFAULT_FILE)
    pictures, broken = find_pictures(options.images)
    if options.expected and path.exists():
        expected = Expected.load(path, options.tolerance)
        expected.require(pictures)
        return expected
    say(f"asking for {len(pictures)} pictures' answers before the load")
    rehearsal = Rehearsal(options)
    expected = rehearsal.run(pictures, broken)
    alike, pairs = expected.count_alike()
    say(f"a swap of answers would be seen in {pairs - alike} of {pairs} pairs of pictures")
    seconds, users = statistics.median(rehearsal.latencies), options.num_users or 1
    if seconds * users > options.timeout:
        say(
            f"one request alone takes {seconds:.1f} s: with {users} users some may exceed "
            f"--timeout {options.timeout:g}"
        )
    try:
        expected.save(path)
    except LoadError as error:
        if options.expected:
            raise
        say(f"the expected answers are not kept: {error}")
    return expected
