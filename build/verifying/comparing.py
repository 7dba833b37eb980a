"""Pictures through PyTorch and through what has to agree with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ram.agreement import AgreementError, Limits, compare
from ram.model import RAM
from ram.pictures import file_batches, picture_batches, picture_files
from ram.served import Vocabulary
from ram.taggers import Tagger, torch_tagger
from rich.console import Console
from rich.progress import Progress

from .candidates import Candidate
from .comparison import Comparison
from .deployment import Deployment, wrong_tag

BATCH_SIZES = (1, 2, 3, 8, 16)  # by turns: an engine may err at one size alone


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
        rows, problem = [], ""
        sizes = [size for size in BATCH_SIZES if size <= deployment.largest_batch()]
        with _progress() as progress:
            task = progress.add_task(deployment.server, total=self.count)
            for paths in file_batches(self.images, sizes):
                tags, logits = deployment.answer([path.read_bytes() for path in paths])
                rows.extend(logits)
                progress.advance(task, len(paths))
                if logits.shape[1:] == self.logits.shape[1:]:
                    for path, *answer in zip(paths, tags, logits, strict=True):
                        wrong = wrong_tag(*answer, self.vocabulary)
                        problem = problem or (wrong and f"{path.name}: {wrong}")
        try:
            agreement = compare(self.logits, np.stack(rows), self.vocabulary)
        except AgreementError as error:
            return Comparison(deployment.server, engine, limits, None, f"another model: {error}")
        return Comparison(deployment.server, engine, limits, agreement, problem)

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
