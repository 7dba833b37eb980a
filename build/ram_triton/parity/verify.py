"""What is installed or served, compared with its checkpoint in PyTorch on a folder of pictures."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client import Tag
from ram_client.protocol import MODEL
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ram_triton.engines.tagger import Array, Pixels, tag_all, torch_answers
from ram_triton.errors import ParityError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.parity.answers import Bounds, find_wrong_tag
from ram_triton.parity.compare import (
    SHOWN,
    Agreement,
    MapAgreement,
    choose_tags,
    compare,
    compare_maps,
)
from ram_triton.parity.files import (
    GraphPair,
    find_graph_pairs,
    half_precision_limits,
    read_repository,
    require_checkpoint,
)
from ram_triton.parity.limits import Limits
from ram_triton.parity.pictures import file_batches, picture_batches, picture_files
from ram_triton.parity.server import OPEN_MODEL, PIXELS_MODEL, Deployment
from ram_triton.server_code import Vocabulary

BATCH_SIZES = (1, 2, 3, 8, 16)  # in turn: an engine may err at one size alone
# Between these logits a float32 score determines its logit to 1e-4.
DETERMINED = (-80.0, 8.0)
WIDTH = 200  # of the table if the output is not a terminal

# Encoded images to each one's tags, and logits (images, tags).
Answer = Callable[[list[bytes]], tuple[list[list[Tag]], npt.NDArray[Any]]]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing one thing with PyTorch.

    Attributes:
        name: the file, or the server's address.
        engine: what computed its logits or heat maps.
        limits: what it may differ by.
        agreement: the figures; None if it could not be compared.
        problem: why not, or what is wrong beside the figures, in one line; empty if nothing is.
    """

    name: str
    engine: str
    limits: Limits
    agreement: Agreement | MapAgreement | None
    problem: str = ""

    @property
    def faults(self) -> list[str]:
        """What is wrong, a phrase each; empty if it agrees with PyTorch."""
        beyond = self.agreement.beyond(self.limits) if self.agreement else []
        return [*beyond, *filter(None, [self.problem])]

    def as_row(self) -> list[Text]:
        """Return the first cells of `print_table`; those that are left out are empty."""
        agreement, limits = self.agreement, self.limits
        mark = Text("differs", "bold red") if self.faults else Text("agrees", "green")
        figures: list[str] = []
        if agreement is None:
            mark = Text("not compared", "bold red")
        elif isinstance(agreement, MapAgreement):
            largest = f"{agreement.largest_map_difference:.2g}"
            figures = [f"maps: {largest} (limit {limits.map_difference:g})"]
        else:
            figures = [
                f"{agreement.largest_logit_difference:.2g} (limit {limits.logit_difference:g})",
                str(agreement.flipped_tags),
                f"{agreement.largest_flip_distance:.2g} (limit {limits.flip_distance:g})",
                f"{agreement.tag_f1:.4f} (limit {limits.tag_f1:g})",
            ]
        return [mark, *map(Text, (self.name, self.engine, *figures))]


def print_table(comparisons: Sequence[Comparison]) -> None:
    """Print one row per comparison."""
    table = Table(
        "",
        "what",
        "computed by",
        "largest logit difference",
        "tags that flip",
        "farthest from its threshold",
        "tag F1",
    )
    for comparison in comparisons:
        table.add_row(*comparison.as_row())
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


@dataclass
class Reference:
    """PyTorch's logits and heat maps of a folder of pictures, and all that is compared with them.

    Attributes:
        model: the checkpoint's.
        vocabulary: its tags and their thresholds.
        images: the folder.
    """

    model: RAM
    vocabulary: Vocabulary
    images: Path

    def __post_init__(self) -> None:
        """Compute them, with a progress bar if stderr is a terminal.

        Raises:
            PictureError: there are no pictures, or one cannot be read.
        """
        self.count = len(picture_files(self.images))
        answers = torch_answers(self.model, self._batches("PyTorch"), choose_tags)
        self.logits, self.tag_ids, self.maps = answers

    def compare_graphs(self, pair: GraphPair) -> Comparison:
        """Compare a pair of graphs; an error of its engine becomes part of the comparison."""
        engine = ""
        try:
            function, engine = pair.load()
            agreement = self._compare(pair, function)
        except Exception as error:  # each engine has its own kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            return Comparison(pair.name, engine, pair.limits, None, reason)
        return Comparison(pair.name, engine, pair.limits, agreement)

    def compare_server(
        self, deployment: Deployment, engine: str, limits: Limits, as_pixels: bool = False
    ) -> Comparison:
        """Compare what a server answers to the same pictures, sent encoded or as pixels.

        Raises:
            ServerError: it refuses, fails, or does not answer.
        """
        name, answer = deployment.address, deployment.answer
        if as_pixels:
            name = f"{name}, {PIXELS_MODEL}"
            size = self.model.variant.image_size
            answer = partial(deployment.answer_pixels, image_size=size)
        logits, problem = self._ask(deployment, answer, self.vocabulary)
        try:
            agreement = compare(self.logits, logits, self.vocabulary)
        except ParityError as error:
            return Comparison(name, engine, limits, None, f"another model: {error}")
        return Comparison(name, engine, limits, agreement, problem)

    def compare_open_server(
        self, deployment: Deployment, engine: str, limits: Limits
    ) -> Comparison:
        """Compare what it answers to requests whose labels are the vocabulary's names.

        Raises:
            ServerError: it refuses, fails, or does not answer.
        """
        first = slice(deployment.most_labels())
        chosen = Vocabulary(
            self.vocabulary.tags[first],
            self.vocabulary.tags_zh[first],
            self.vocabulary.thresholds[first],
        )
        answer = partial(deployment.answer_open, labels=chosen.tags)
        asked = replace(chosen, thresholds=np.zeros_like(chosen.thresholds))
        logits, problem = self._ask(deployment, answer, asked)
        both = np.clip(self.logits[:, first], *DETERMINED), np.clip(logits, *DETERMINED)
        name = f"{deployment.address}, {OPEN_MODEL}"
        return Comparison(name, engine, limits, compare(*both, chosen), problem)

    def compare_server_maps(
        self, deployment: Deployment, model: str, engine: str, limits: Limits
    ) -> Comparison:
        """Compare the heat maps that an ensemble answers with: of each picture's first tags.

        Raises:
            ServerError: it refuses, fails, or does not answer.
        """
        name = f"{deployment.address}, maps of {model}"
        labels = None
        if model == OPEN_MODEL:
            labels = self.vocabulary.tags[slice(deployment.most_labels())]
        answers = []
        with self._progress(name) as advance:
            for paths in file_batches(self.images, self._sizes(deployment)):
                images = [path.read_bytes() for path in paths]
                answers.append(deployment.answer_maps(images, SHOWN, labels))
                advance(len(paths))
        tag_ids, maps = map(np.concatenate, zip(*answers, strict=True))
        try:
            agreement = compare_maps(self.maps, self.tag_ids, maps, tag_ids)
        except ParityError as error:
            return Comparison(name, engine, limits, None, f"another model: {error}")
        return Comparison(name, engine, limits, agreement)

    def _compare(self, pair: GraphPair, function: Callable[..., Array]) -> Agreement | MapAgreement:
        if not pair.model.makes_maps:
            logits = tag_all(function, self._batches(pair.name))
            return compare(self.logits, logits, self.vocabulary)
        made, first = [], 0
        for pixels in self._batches(pair.name):
            made.append(function(pixels, tag_ids=self.tag_ids[first : first + len(pixels)]))
            first += len(pixels)
        return compare_maps(self.maps, self.tag_ids, np.concatenate(made), self.tag_ids)

    def _ask(
        self, deployment: Deployment, answer: Answer, vocabulary: Vocabulary
    ) -> tuple[npt.NDArray[Any], str]:
        """Ask for all pictures; returns the logits, and the first thing wrong with tags or ''."""
        rows: list[npt.NDArray[Any]] = []
        problem = ""
        with self._progress(deployment.address) as advance:
            for paths in file_batches(self.images, self._sizes(deployment)):
                tags, logits = answer([path.read_bytes() for path in paths])
                rows.extend(logits)
                advance(len(paths))
                if logits.shape[1:] != vocabulary.thresholds.shape:
                    continue  # `compare` reports it
                for path, given, row in zip(paths, tags, logits, strict=True):
                    wrong = find_wrong_tag(given, Bounds.of_logits(row), vocabulary)
                    problem = problem or (f"{path.name}: {wrong}" if wrong else "")
        return np.stack(rows), problem

    @staticmethod
    def _sizes(deployment: Deployment) -> list[int]:
        return [size for size in BATCH_SIZES if size <= deployment.largest_batch()]

    def _batches(self, what: str) -> Iterator[Pixels]:
        """Yield the pictures' pixels; each batch counts as done when the next is asked for."""
        with self._progress(what) as advance:
            for pixels in picture_batches(self.images, self.model.variant.image_size, BATCH_SIZES):
                yield pixels
                advance(len(pixels))

    @contextmanager
    def _progress(self, what: str) -> Iterator[Callable[[int], None]]:
        """Show a bar on a terminal; yields what counts pictures that are done."""
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(what, total=self.count)
            yield lambda done: progress.advance(task, done)


def verify(
    root: Path, checkpoint: Path, images: Path, formats: Sequence[str], server: str | None
) -> list[Comparison]:
    """Compare a repository's graphs, or a server's answers, with PyTorch's.

    Args:
        root: the repository.
        checkpoint: the one that it was built from.
        images: folder of pictures to compare on.
        formats: names of the graphs' files to compare; if empty, all that are there.
        server: gRPC address of a server to compare instead of files.

    Raises:
        RepositoryError: no model was built into the repository.
        ParityError, CheckpointError, PictureError: there is nothing to compare, or of two models.
        ServerError: the server refuses, fails, or does not answer.
    """
    manifest, vocabulary = read_repository(root)
    picture_files(images)  # before anything that takes long
    require_checkpoint(checkpoint, manifest)
    if not server:
        pairs = find_graph_pairs(root, manifest, formats)
        reference = Reference(load_model(checkpoint), vocabulary, images)
        return [reference.compare_graphs(pair) for pair in pairs]
    with Deployment(server) as deployment:
        half = half_precision_limits(manifest)
        asked = {model: deployment.engine(model, half) for model in deployment.models()}
        reference = Reference(load_model(checkpoint), vocabulary, images)
        comparisons = [reference.compare_server(deployment, *asked[MODEL])]
        # A server of another vocabulary does not know the labels to ask for.
        if OPEN_MODEL in asked and not comparisons[0].problem:
            comparisons.append(reference.compare_open_server(deployment, *asked[OPEN_MODEL]))
        if PIXELS_MODEL in asked and not comparisons[0].problem:
            comparison = reference.compare_server(deployment, *asked[PIXELS_MODEL], as_pixels=True)
            comparisons.append(comparison)
        comparisons += [
            reference.compare_server_maps(deployment, model, *by)
            for model, by in asked.items()
            if model != PIXELS_MODEL  # its maps are those of `ram`
            and deployment.has_maps(model)
            and not comparisons[0].problem
        ]
        return comparisons
