"""Feed the preprocessor damaged files, for as long as you like; print what came of them.

The files are those of `image_files.corpus` and of a folder of your own, mutated by a seeded loop.
A finding is whatever is neither pixels nor a refusal in one line: a decoder that ends or takes
longer than it may, a message that shows an object's address. `--keep` names a folder for them.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from ram_triton.arguments import positive
from ram_triton.cli import run_module
from ram_triton.server_code import ImageError, decoder, image_limits

from experiments.image_files import corpus

IMAGE_SIZE = 64
MAX_PIXELS = 2**24
NUMBERS = (0, 1, 2, 4, 8, 16, 32, 64, 100, 127, 128, 254, 255, 256, 4096, 32767, 65535, 2**31 - 1)
ADDRESS = re.compile(r"0x[0-9a-f]{6}")
LONGEST = 300  # characters of a message
FAULTS = ("crashes the decoder", "takes longer to decode")


@dataclass
class Outcome:
    """What came of the files.

    Attributes:
        accepted: how many gave pixels, by the corpus's name of the file before it was mutated.
        refused: how many were refused.
        findings: (name, what is wrong, the file).
        slowest: seconds, and the name.
    """

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[str, str, bytes]] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("folder", type=Path, nargs="?", help="folder of files to mutate too")
    add("--seconds", type=positive, default=60, help="how long (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the mutations (default: %(default)s)")
    add("--keep", type=Path, help="folder for what is found")


def run(arguments: argparse.Namespace) -> None:
    """Print a row per kind of file, and the findings."""
    files = corpus()
    for path in sorted(arguments.folder.iterdir()) if arguments.folder else ():
        if path.is_file():
            files[path.name] = path.read_bytes()
    outcome = fuzz(files, arguments.seed, arguments.seconds)
    print("| file | accepted | refused |\n|---|---|---|")
    for name in files:
        print(f"| {name} | {outcome.accepted[name]} | {outcome.refused[name]} |")
    print(f"\nslowest: {outcome.slowest[0]:.2f} s, {outcome.slowest[1]}")
    print(f"{len(outcome.findings)} findings")
    for number, (name, what, data) in enumerate(outcome.findings):
        print(f"{name}: {what}")
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{arguments.seed}-{number}").write_bytes(data)


def fuzz(files: dict[str, bytes], seed: int, seconds: float, most: int | None = None) -> Outcome:
    """Decode mutated files in turn.

    Args:
        files: by name.
        seed: of the mutations: the same gives the same files.
        seconds: how long.
        most: how many files at most.
    """
    limits = replace(image_limits(), max_pixels=MAX_PIXELS)
    decoding = decoder.Decoder(IMAGE_SIZE, limits)
    generator, outcome, names = random.Random(seed), Outcome(), list(files)
    count, until = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < until and (most is None or count < most):
            name = names[count % len(names)]
            count += 1
            data = mutate(files[name], files[generator.choice(names)], generator)
            started = time.monotonic()
            try:
                pixels = decoding.preprocess(data)
            except ImageError as error:
                outcome.refused[name] += 1
                problem = judge(str(error))
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                outcome.accepted[name] += 1
                shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
                problem = None if pixels.shape == shape else f"pixels of shape {pixels.shape}"
            outcome.slowest = max(outcome.slowest, (time.monotonic() - started, name))
            if problem:
                outcome.findings.append((name, problem, data))
    finally:
        decoding.close()
    return outcome


def judge(message: str) -> str | None:
    """Return what is wrong with a refusal's message, if anything is."""
    bad = not 0 < len(message) < LONGEST or not message.isprintable() or ADDRESS.search(message)
    return message if bad or any(fault in message for fault in FAULTS) else None


def mutate(data: bytes, other: bytes, generator: random.Random) -> bytes:
    """Return a file with a few of its bytes, numbers or parts changed."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 16))):
        # Headers steer decoders most; they stand at the beginning, a TIFF's often at the end.
        reach = max(1, min(len(changed), generator.choice((30, 200, len(changed)))))
        place = generator.randrange(reach)
        if generator.random() < 0.25:
            place = max(0, len(changed) - 1 - place)
        kind = generator.randrange(8)
        if kind < 3:
            changed[place : place + 1] = bytes((generator.randrange(256),))
        elif kind < 5:
            width, order = generator.choice((1, 2, 4)), generator.choice(("little", "big"))
            number = generator.choice(NUMBERS) % 256**width
            changed[place : place + width] = number.to_bytes(width, order)
        elif kind == 5:
            del changed[place : place + generator.choice((1, 2, 16, len(changed)))]
        elif kind == 6:
            part = changed[place : place + generator.choice((4, 16, 64))]
            changed[place:place] = part * generator.choice((1, 2, 100))
        else:
            start = generator.randrange(len(other))
            changed[place : place + 64] = other[start : start + 64]
    return bytes(changed)


if __name__ == "__main__":
    sys.exit(run_module("experiments.fuzz_images", sys.modules[__name__]))
