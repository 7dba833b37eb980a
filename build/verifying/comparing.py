"""Pictures through PyTorch and through what has to agree with it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from ram.agreement import AgreementError, Limits, compare
from ram.model import RAM
from ram.pictures import file_batches, picture_batches, picture_files
from ram.served import Vocabulary
from ram.taggers import Tagger, torch_tagger
from ram_client import Tag
from rich.console import Console
from rich.progress import Progress

from .candidates import Candidate
from .comparison import Comparison
from .deployment import OPEN_MODEL, Deployment, wrong_tag

BATCH_SIZES = (1, 2, 3, 8, 16)  # by turns: an engine may err at one size alone
MOST_LABELS = 5000  # of a request
# Between these logits a float32 score tells its logit to 1e-4.
TOLD = (-80.0, 8.0)

# Encoded images to each one's tags, and logits (images, tags).
Answer = Callable[[list[bytes]], tuple[list[list[Tag]], np.ndarray]]


@dataclass
class Reference:
    """PyTorch's logits of a folder of pictures, and all that is compared with them.

    Attributes:
        model: the checkpoint's.
        vocabulary: its tags and their thresholds.
        images: the folder.
    """

    model: RAM
    vocabulary: Vocabulary
    images: Path

    def __post_init__(self) -> None:
        """Compute the logits, with a progress bar where somebody looks.

        Raises:
            PictureError: there are no pictures, or one can't be read.
        """
        self.count = len(picture_files(self.images))
        self.logits = self._run(torch_tagger(self.model), "PyTorch")

    def compare_files(self, candidate: Candidate) -> Comparison:
        """Compare a pair of files; what its engine refuses is told, not raised."""
        engine = ""
        try:
            tagger, engine = candidate.load()
            logits = self._run(tagger, candidate.name)
            agreement = compare(self.logits, logits, self.vocabulary)
        except Exception as error:  # each engine has its own kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            return Comparison(candidate.name, engine, candidate.limits, None, reason)
        return Comparison(candidate.name, engine, candidate.limits, agreement)

    def compare_server(self, deployment: Deployment, engine: str, limits: Limits) -> Comparison:
        """Compare what a server answers to the same pictures.

        Raises:
            RamError: it refuses, fails, or does not answer.
        """
        name = deployment.server
        logits, problem = self._ask(deployment, deployment.answer, self.vocabulary)
        try:
            agreement = compare(self.logits, logits, self.vocabulary)
        except AgreementError as error:
            return Comparison(name, engine, limits, None, f"another model: {error}")
        return Comparison(name, engine, limits, agreement, problem)

    def compare_open_server(
        self, deployment: Deployment, engine: str, limits: Limits
    ) -> Comparison:
        """Compare what it answers where requests bring the vocabulary's names as their labels.

        Raises:
            RamError: it refuses, fails, or does not answer.
        """
        # As the server finds them: of names that differ in case alone, the last.
        by_name = {name.strip().casefold(): id for id, name in enumerate(self.vocabulary.tags)}
        ids = list(by_name.values())[:MOST_LABELS]
        chosen = Vocabulary(
            [self.vocabulary.tags[id] for id in ids],
            [self.vocabulary.tags_zh[id] for id in ids],
            self.vocabulary.thresholds[ids],
        )
        answer = partial(deployment.answer_open, labels=chosen.tags)
        asked = replace(chosen, thresholds=np.zeros(len(ids), np.float32))
        logits, problem = self._ask(deployment, answer, asked)
        told = np.clip(self.logits[:, ids], *TOLD), np.clip(logits, *TOLD)
        return Comparison(
            f"{deployment.server}, {OPEN_MODEL}", engine, limits, compare(*told, chosen), problem
        )

    def _ask(
        self, deployment: Deployment, answer: Answer, vocabulary: Vocabulary
    ) -> tuple[np.ndarray, str]:
        """Ask for all pictures; returns the logits, and what is wrong with a tag, if any is."""
        rows, problem = [], ""
        sizes = [size for size in BATCH_SIZES if size <= deployment.largest_batch()]
        with _progress() as progress:
            task = progress.add_task(deployment.server, total=self.count)
            for paths in file_batches(self.images, sizes):
                tags, logits = answer([path.read_bytes() for path in paths])
                rows.extend(logits)
                progress.advance(task, len(paths))
                if logits.shape[1:] == vocabulary.thresholds.shape:
                    for path, *answered in zip(paths, tags, logits, strict=True):
                        wrong = wrong_tag(*answered, vocabulary)
                        problem = problem or (wrong and f"{path.name}: {wrong}")
        return np.stack(rows), problem

    def _run(self, tagger: Tagger, what: str) -> np.ndarray:
        size = self.model.variant.image_size
        with _progress() as progress:
            task = progress.add_task(what, total=self.count)

            def rows() -> Iterator[np.ndarray]:
                for pixels in picture_batches(self.images, size, BATCH_SIZES):
                    yield tagger(pixels)
                    progress.advance(task, len(pixels))

            return np.concatenate(list(rows()))


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
