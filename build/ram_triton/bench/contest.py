"""Several ways to tag pictures, timed by turns."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from ram_triton.bench.figure import Figure, percentile

# Numbers of the pictures to the answer about them, and the check of such an answer.
Ask = Callable[[Sequence[int]], object]
Check = Callable[[Sequence[int], object], None]


@dataclass
class Competitor:
    """A way to tag pictures, at one batch size and concurrency.

    Attributes:
        way: `PyTorch`, `engine`, `gRPC`, or another name for the table.
        precision: what it computes in.
        batch: pictures in one request.
        concurrency: how many requests are on their way at any moment.
        pictures: how many there are to choose from.
        ask: does what is timed.
        check: raises `ParityError`; called outside of the timed.
    """

    way: str
    precision: str
    batch: int
    concurrency: int
    pictures: int
    ask: Ask = field(repr=False)
    check: Check = field(repr=False)
    rounds: list["Round"] = field(default_factory=list, repr=False)

    def run(self, seconds: float) -> None:
        """Keep `concurrency` requests on their way for some time, and at least one each."""
        starts = itertools.count()
        begin = perf_counter()

        def one_client(_: int) -> list[tuple[float, list[int], object]]:
            answers = []
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
            self.check(numbers, answer)
        self.rounds.append(Round(len(answers) * self.batch, taken, [each[0] for each in answers]))

    def forget(self) -> None:
        """Drop what was measured so far."""
        self.rounds.clear()

    def as_dict(self) -> dict[str, object]:
        """Return what was measured by name, for JSON."""
        return {
            "way": self.way,
            "precision": self.precision,
            "batch": self.batch,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "images_per_second": self.throughput.as_dict(),
            "p50_ms": self.latency(0.5).as_dict(),
            "p99_ms": self.latency_of_all(0.99),
        }

    @property
    def throughput(self) -> Figure:
        """Images a second, round by round."""
        return Figure(tuple(each.images / each.seconds for each in self.rounds))

    def latency(self, share: float) -> Figure:
        """Milliseconds that so large a share of a round's requests did not exceed."""
        return Figure(tuple(1000 * percentile(each.latencies, share) for each in self.rounds))

    def latency_of_all(self, share: float) -> float:
        """Milliseconds that so large a share of all rounds' requests did not exceed.

        For shares that are rare: a round alone may have no hundred requests.
        """
        return 1000 * percentile([s for each in self.rounds for s in each.latencies], share)

    @property
    def requests(self) -> int:
        """How many requests were timed, in all rounds."""
        return sum(len(each.latencies) for each in self.rounds)


@dataclass(frozen=True)
class Round:
    """One turn of a competitor: how many images in how many seconds, and each request's seconds."""

    images: int
    seconds: float
    latencies: list[float]


def hold(
    competitors: Sequence[Competitor],
    repeats: int,
    seconds: float,
    random: np.random.Generator,
    tell: Callable[[Competitor, int], None],
) -> None:
    """Let all take turns, in a random order each round: noise then hits all alike.

    A first request of each, which allocates buffers, is checked but not counted.

    Args:
        competitors: whose `rounds` are filled.
        repeats: rounds.
        seconds: of a turn; a request that began in time is waited for.
        random: of the order.
        tell: called before each turn, with the number of its round, from 0 (the uncounted).

    Raises:
        ParityError: one of them gave one.
    """
    for turn in range(repeats + 1):
        for index in random.permutation(len(competitors)).tolist():
            tell(competitors[index], turn)
            competitors[index].run(seconds if turn else 0)
            if not turn:
                competitors[index].forget()
