"""Pictures through PyTorch and through what has to agree with it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from ram_client import Tag
from ram_client.protocol import MODEL
from rich.console import Console
from rich.progress import Progress

from ram_triton.engines.pytorch import Tagger, torch_tagger
from ram_triton.errors import ParityError, RepositoryError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.parity.compare import Limits, compare
from ram_triton.parity.files import Candidate, find_candidates, typed_limits
from ram_triton.parity.pictures import file_batches, picture_batches, picture_files
from ram_triton.parity.server import OPEN_MODEL, Deployment, wrong_tag
from ram_triton.parity.table import Comparison
from ram_triton.repository.layout import VOCABULARY
from ram_triton.repository.repository import Repository, sha256
from ram_triton.server_code import Vocabulary

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
            PictureError: there are no pictures, or one cannot be read.
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
        except ParityError as error:
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


def verify(
    root: Path, checkpoint: Path, images: Path, formats: Sequence[str], server: str | None
) -> list[Comparison]:
    """Compare a repository's files, or a server's answers, with PyTorch's.

    Args:
        root: the repository.
        checkpoint: the one that it was built from.
        images: folder of pictures to compare on.
        formats: names of the graphs' files to compare; empty: all that are there.
        server: gRPC address of a server to compare instead of files.

    Raises:
        ParityError, CheckpointError, PictureError: there is nothing to compare, or of two models.
        RamError: the server refuses, fails, or does not answer.
    """
    manifest, vocabulary = read_repository(root)
    picture_files(images)  # before anything that takes long
    require_checkpoint(checkpoint, manifest)
    if not server:
        candidates = find_candidates(root, manifest, formats)
        reference = Reference(load_model(checkpoint), vocabulary, images)
        return [reference.compare_files(candidate) for candidate in candidates]
    with Deployment(server) as deployment:
        typed = typed_limits(manifest)
        asked = {model: deployment.engine(model, typed) for model in deployment.models()}
        reference = Reference(load_model(checkpoint), vocabulary, images)
        comparisons = [reference.compare_server(deployment, *asked[MODEL])]
        # Of another vocabulary the server has no labels to be asked for.
        if OPEN_MODEL in asked and not comparisons[0].problem:
            comparisons.append(reference.compare_open_server(deployment, *asked[OPEN_MODEL]))
        return comparisons


def read_repository(root: Path) -> tuple[dict, Vocabulary]:
    """Return the manifest and the vocabulary.

    Raises:
        ParityError: no model was built into it, or one of both is damaged.
    """
    try:
        manifest = Repository(root).manifest()
        if manifest is None:
            raise ParityError(f"{root}: holds no model: run 'make model' first")
        manifest["checkpoint"]["sha256"]  # what all else rests on
        return manifest, Vocabulary.load(root / VOCABULARY)
    except RepositoryError as error:
        raise ParityError(str(error)) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ParityError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ParityError(f"{root}: manifest or vocabulary is damaged ({reason})") from error


def require_checkpoint(checkpoint: Path, manifest: dict) -> None:
    """Check that this is the file which the repository was built from.

    Raises:
        ParityError: it is another one, or cannot be read.
    """
    try:
        found = sha256(checkpoint)
    except OSError as error:
        raise ParityError(f"{checkpoint}: cannot be read ({error.strerror})") from error
    built = manifest["checkpoint"]
    if found != built["sha256"]:
        raise ParityError(
            f"{checkpoint}: the repository was built from another checkpoint, '{built['name']}' "
            f"with SHA-256 {built['sha256'][:12]}…, this one has {found[:12]}…"
        )
