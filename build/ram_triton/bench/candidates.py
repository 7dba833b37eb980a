"""What is timed: PyTorch, the engine and Triton, at each batch size and concurrency."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client.protocol import read_tags
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult

from ram_triton.bench.measurement import Measurement, interleave, percentile
from ram_triton.bench.triton_steps import Statistics
from ram_triton.engines.tagger import Logits
from ram_triton.errors import ParityError
from ram_triton.parity.answers import Bounds, find_wrong_logit, find_wrong_tag
from ram_triton.parity.limits import FLOAT32_LIMITS, Limits
from ram_triton.parity.server import Deployment
from ram_triton.server_code import Vocabulary

PYTORCH, ENGINE, GRPC = "PyTorch", "engine alone", "Triton through gRPC"
PRODUCT = "matrix product"
# The share of a precision's limits that an image's neighbours in a batch may change a logit by.
NEIGHBOURS = 0.1

# Numbers of the pictures of a request to the answer about them.
Ask = Callable[[Sequence[int]], Any]
# The same numbers and that answer to what is wrong with it, in one line, or None.
Check = Callable[[Sequence[int], Any], str | None]


@dataclass(frozen=True)
class Round:
    """One turn of a candidate: how many images in how many seconds, and each request's seconds."""

    images: int
    seconds: float
    latencies: list[float]


@dataclass
class Candidate:
    """Something that answers requests, timed at one batch size and concurrency.

    Attributes:
        name: `PYTORCH`, `ENGINE`, `GRPC`, or another name for the table.
        precision: what it computes in.
        batch: pictures per request.
        concurrency: how many requests are on their way at any moment.
        pictures: how many there are to choose from.
        ask: does what is timed.
        check: finds what is wrong with an answer; called after the time is taken.
    """

    name: str
    precision: str
    batch: int
    concurrency: int
    pictures: int
    ask: Ask = field(repr=False)
    check: Check = field(repr=False)
    rounds: list[Round] = field(default_factory=list, repr=False)

    def run(self, seconds: float) -> None:
        """Keep `concurrency` requests on their way for some time, and at least one each.

        Raises:
            ParityError: an answer is wrong; the message starts with the name.
        """
        starts = itertools.count()
        begin = perf_counter()

        def one_client(_: int) -> list[tuple[float, list[int], Any]]:
            answers: list[tuple[float, list[int], Any]] = []
            while not answers or perf_counter() - begin < seconds:
                first = next(starts) * self.batch
                numbers = [(first + index) % self.pictures for index in range(self.batch)]
                sent = perf_counter()
                answer = self.ask(numbers)
                answers.append((perf_counter() - sent, numbers, answer))
            return answers

        with ThreadPoolExecutor(self.concurrency) as pool:
            answers = list(itertools.chain(*pool.map(one_client, range(self.concurrency))))
        taken = perf_counter() - begin
        for _, numbers, answer in answers:
            if wrong := self.check(numbers, answer):
                raise ParityError(f"{self.name}: a wrong answer: {wrong}")
        self.rounds.append(Round(len(answers) * self.batch, taken, [each[0] for each in answers]))

    def forget(self) -> None:
        """Drop what was measured so far."""
        self.rounds.clear()

    @property
    def throughput(self) -> Measurement:
        """Images per second, round by round."""
        return Measurement(tuple(each.images / each.seconds for each in self.rounds))

    def latency(self, share: float) -> Measurement:
        """Return the milliseconds that this share of a round's requests did not exceed."""
        return Measurement(tuple(1000 * percentile(each.latencies, share) for each in self.rounds))

    def latency_of_all(self, share: float) -> float:
        """Return the milliseconds that this share of all rounds' requests did not exceed.

        For a share close to 1: a single round may have less than a hundred requests.
        """
        return 1000 * percentile([s for each in self.rounds for s in each.latencies], share)

    @property
    def requests(self) -> int:
        """How many requests were timed, in all rounds."""
        return sum(len(each.latencies) for each in self.rounds)

    def as_dict(self) -> dict[str, object]:
        """Return what was measured by name, for JSON."""
        return {
            "name": self.name,
            "precision": self.precision,
            "batch": self.batch,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "images_per_second": self.throughput.as_dict(),
            "p50_ms": self.latency(0.5).as_dict(),
            "p99_ms": self.latency_of_all(0.99),
        }


COUNTED_WITHIN = 30.0  # seconds; Triton counts a request shortly after it has answered


@dataclass
class TritonCandidate(Candidate):
    """Triton, with its own statistics of each counted round.

    Attributes:
        deployment: the server.
        statistics: one per round.
    """

    deployment: Deployment = field(kw_only=True, repr=False)
    statistics: list[Statistics] = field(default_factory=list, repr=False)

    def run(self, seconds: float) -> None:
        """As any candidate's."""
        before = Statistics.read(self.deployment.statistics)
        super().run(seconds)
        answered, end = len(self.rounds[-1].latencies), perf_counter() + COUNTED_WITHIN
        while True:
            found = Statistics.read(self.deployment.statistics) - before
            if min(found.counts.values()) >= answered or perf_counter() > end:
                break
        self.statistics.append(found)

    def forget(self) -> None:
        """Drop what was measured so far."""
        super().forget()
        self.statistics.clear()

    def total(self) -> Statistics:
        """Return the statistics of all rounds together."""
        return reduce(add, self.statistics)


def run_rounds(
    candidates: Sequence[Candidate],
    rounds: int,
    seconds: float,
    random: np.random.Generator,
    show: Callable[[Candidate, int], None],
) -> None:
    """Let all candidates answer requests, interleaved.

    First a request of each, which allocates buffers, is checked but not counted.

    Args:
        candidates: their `rounds` are filled.
        rounds: how often each is timed.
        seconds: of one candidate in one round; requests that began in time are completed.
        random: decides the order of each round.
        show: called before each turn, with the number of its round, 0 for the uncounted one.

    Raises:
        ParityError: an answer is wrong.
    """
    for candidate in candidates:
        show(candidate, 0)
        candidate.run(0)
        candidate.forget()
    for number, candidate in interleave(candidates, rounds, random):
        show(candidate, number)
        candidate.run(seconds)


@dataclass(frozen=True)
class Expected:
    """What a candidate has to answer, whatever other pictures are in the request.

    Attributes:
        logits: of each picture, (pictures, tags).
        tolerance: what a logit may differ by.
    """

    logits: Logits
    tolerance: float

    @classmethod
    def accept(cls, name: str, exact: Logits, alone: Logits, limits: Limits) -> "Expected":
        """Compare what a candidate answers to each picture alone with PyTorch's logits.

        Args:
            name: the candidate's.
            exact: PyTorch's logits, (pictures, tags).
            alone: the candidate's; from now on it has to answer these, far more closely.
            limits: what its precision may differ by.

        Raises:
            ParityError: the number of tags is another, or a logit differs by more than the limit;
                the message starts with the name.
        """
        if alone.shape != exact.shape:
            raise ParityError(
                f"{name}: answers with {alone.shape[1]} tags, the repository has "
                f"{exact.shape[1]}: specify the REPOSITORY that the server serves"
            )
        if wrong := find_wrong_logit(exact, alone, limits.logit_difference):
            raise ParityError(f"{name}: a wrong answer: {wrong}")
        return cls(
            alone, max(FLOAT32_LIMITS.logit_difference, NEIGHBOURS * limits.logit_difference)
        )

    def find_wrong_logit(self, numbers: Sequence[int], logits: Logits) -> str | None:
        """Return what is wrong with an engine's logits of these pictures, or None."""
        return find_wrong_logit(self.logits[list(numbers)], logits, self.tolerance)

    def find_wrong_tag(
        self, vocabulary: Vocabulary, numbers: Sequence[int], answer: InferResult
    ) -> str | None:
        """Return what is wrong with a server's tags of these pictures, or None."""
        for number, tags in zip(numbers, read_tags(answer), strict=True):
            bounds = Bounds.of_logits(self.logits[number], self.tolerance)
            if wrong := find_wrong_tag(tags, bounds, vocabulary):
                return wrong
        return None


def preprocessor_candidate(
    deployment: Deployment,
    name: str,
    encoded: bytes,
    pixels: npt.NDArray[np.uint8],
    clients: int,
) -> Candidate:
    """Return the served preprocessor as a candidate, which decodes one picture again and again.

    Args:
        deployment: the server.
        name: the picture's.
        encoded: the picture.
        pixels: its right pixels, (size, size, 3) uint8.
        clients: how many ask at once.
    """
    image = InferInput("image", [1, 1], "BYTES")
    image.set_data_from_numpy(np.array([[encoded]], np.object_))
    request = {
        "model_name": "ram_preprocess",
        "inputs": [image],
        "outputs": [InferRequestedOutput("pixels")],
    }

    def check(_: Sequence[int], answer: InferResult) -> str | None:
        return None if np.array_equal(answer.as_numpy("pixels")[0], pixels) else "other pixels"

    return Candidate(
        f"ram_preprocess, {name}",
        "uint8",
        1,
        clients,
        1,
        ask=lambda _: deployment.infer(request),
        check=check,
    )
