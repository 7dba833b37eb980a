"""The part of `experiments.bulk` that kills runs, and compares the rows that are there at last."""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pyarrow import parquet
from ram_triton.repository.layout import VOCABULARY
from ram_triton.server_code import Vocabulary

SEED = 5
START = 1.0  # seconds that a run takes before it tags
SMALL_PARTS = "--shard-size=100"  # of the run that is killed: some are done between two kills
# What a picture's neighbours in a batch may change one of its scores by, in bfloat16.
TOLERANCE = 0.02
# What is counted of two outputs' rows.
WRONG = MISPLACED, FAILED, SCORES = ("missing, twice or misplaced", "other errors", "wrong scores")
NEAR = "with other tags near their thresholds"

Row = dict[str, Any]


def go_on_until_done(line: list[str], kills: int, seconds: float) -> None:
    """Start a run again and again, killed at random moments, and at last let it end.

    Args:
        line: its command line.
        kills: how many times.
        seconds: that it takes if it is not killed; the moments are spread over all of it.
    """
    chance = random.Random(SEED)
    command = [*line, SMALL_PARTS]
    met = 0
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=START + chance.uniform(0, 2 * seconds / kills))
        except subprocess.TimeoutExpired:
            met += 1
        process.kill()
        process.wait()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"killed {met} times, then: {done.stdout.splitlines()[0]}")


def report_differences(before: Path, after: Path, repository: Path) -> bool:
    """Compare two outputs row by row, and print what differs; whether nothing does that should not.

    A tag may be in one of them only if its score is within TOLERANCE of its threshold: the same
    picture was in batches with others.
    """
    thresholds = Vocabulary.load(repository / VOCABULARY).thresholds
    found = Counter(dict.fromkeys(("rows", *WRONG, NEAR), 0))
    largest = 0.0
    for wanted, row in zip_longest(_rows(before), _rows(after)):
        found["rows"] += 1
        if wanted is None or row is None or wanted["key"] != row["key"]:
            found[MISPLACED] += 1
            continue
        found[FAILED] += wanted["error"] != row["error"]
        scores, others = (
            dict(zip(each["ids"] or (), each["scores"] or (), strict=True))
            for each in (wanted, row)
        )
        found[NEAR] += scores.keys() != others.keys()
        for tag in scores.keys() | others.keys():
            threshold = float(thresholds[tag])
            difference = abs(scores.get(tag, threshold) - others.get(tag, threshold))
            largest = max(largest, difference)
            found[SCORES] += difference > TOLERANCE
    print(", ".join(f"{count} {name}" for name, count in found.items()))
    print(f"largest difference of a score: {largest:.3g}")
    return not any(found[name] for name in WRONG)


def _rows(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("*.parquet")):
        columns = ["key", "ids", "scores", "error"]
        # Not read_table: its threads abort the process at its end, now and then (pyarrow 25.0).
        yield from parquet.ParquetFile(path).read(columns).to_pylist()
