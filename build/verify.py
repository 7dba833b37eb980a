"""Compare what a repository holds, or what a server answers, with its checkpoint in PyTorch.

Every picture of a folder goes through the served preprocessing, and then through both. The exit
status is 0 only where all that was compared agrees, within the limits that the build has too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ram.checkpoint import CheckpointError, load_model
from ram.layout import VOCABULARY
from ram.pictures import PictureError, picture_files
from ram.repository import Repository, RepositoryError, sha256
from ram.served import Vocabulary
from ram_client import RamError
from ram_client.protocol import MODEL
from verifying.candidates import FORMATS, VerifyError, find_candidates, typed_limits
from verifying.comparing import Reference
from verifying.comparison import Comparison, print_table
from verifying.deployment import OPEN_MODEL, Deployment

HERE = Path(__file__).resolve().parent


def main(command_line: Sequence[str] | None = None) -> int:
    """Compare, and print a table; returns the exit status."""
    arguments = parse_arguments(command_line)
    try:
        comparisons = verify(arguments)
    except (VerifyError, CheckpointError, PictureError, RamError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("verify: interrupted", file=sys.stderr)
        return 130
    print(f"{arguments.checkpoint} in PyTorch, float32, on the pictures in {arguments.images}")
    print_table(comparisons)
    for comparison in comparisons:
        for fault in comparison.faults:
            print(f"verify: {comparison.name}: {fault}", file=sys.stderr)
    return int(any(comparison.faults for comparison in comparisons))


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repository", type=Path, default=HERE.parent / "model_repository", metavar="DIR",
        help="model repository (default: this one's)")  # fmt: skip
    add("--checkpoint", type=Path, required=True, metavar="FILE",
        help="the one that the repository was built from")  # fmt: skip
    add("--images", type=Path, default=HERE / "demo" / "images", metavar="DIR",
        help="pictures to compare on (default: the demo's)")  # fmt: skip
    add("--format", choices=FORMATS, action="append", default=[],
        help="compare this alone; may be repeated (default: all that is there)")  # fmt: skip
    add("--server", metavar="HOST:PORT",
        help="compare what the server at this gRPC address answers, instead of files")  # fmt: skip
    return parser.parse_args(command_line)


def verify(arguments: argparse.Namespace) -> list[Comparison]:
    """Do what the arguments say.

    Raises:
        VerifyError, CheckpointError, PictureError: there is nothing to compare, or of two models.
        RamError: the server refuses, fails, or does not answer.
    """
    root, server = arguments.repository, arguments.server
    manifest, vocabulary = read_repository(root)
    picture_files(arguments.images)  # before anything that takes long
    require_checkpoint(arguments.checkpoint, manifest)
    if not server:
        candidates = find_candidates(root, manifest, arguments.format)
        reference = Reference(load_model(arguments.checkpoint), vocabulary, arguments.images)
        return [reference.compare_files(candidate) for candidate in candidates]
    with Deployment(server) as deployment:
        typed = typed_limits(manifest)
        asked = {model: deployment.engine(model, typed) for model in deployment.models()}
        reference = Reference(load_model(arguments.checkpoint), vocabulary, arguments.images)
        comparisons = [reference.compare_server(deployment, *asked[MODEL])]
        # Of another vocabulary the server has no labels to be asked for.
        if OPEN_MODEL in asked and not comparisons[0].problem:
            comparisons.append(reference.compare_open_server(deployment, *asked[OPEN_MODEL]))
        return comparisons


def read_repository(root: Path) -> tuple[dict, Vocabulary]:
    """Return the manifest and the vocabulary.

    Raises:
        VerifyError: no model was built into it, or one of both is damaged.
    """
    try:
        manifest = Repository(root).manifest()
        if manifest is None:
            raise VerifyError(f"{root}: holds no model: run 'make model' first")
        manifest["checkpoint"]["sha256"]  # what all else rests on
        return manifest, Vocabulary.load(root / VOCABULARY)
    except RepositoryError as error:
        raise VerifyError(str(error)) from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, VerifyError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise VerifyError(f"{root}: manifest or vocabulary is damaged ({reason})") from error


def require_checkpoint(checkpoint: Path, manifest: dict) -> None:
    """Check that this is the file which the repository was built from.

    Raises:
        VerifyError: it is another one, or can't be read.
    """
    try:
        found = sha256(checkpoint)
    except OSError as error:
        raise VerifyError(f"{checkpoint}: can't be read ({error.strerror})") from error
    built = manifest["checkpoint"]
    if found != built["sha256"]:
        raise VerifyError(
            f"{checkpoint}: the repository was built from another checkpoint, '{built['name']}' "
            f"with SHA-256 {built['sha256'][:12]}…, this one has {found[:12]}…"
        )


if __name__ == "__main__":
    sys.exit(main())
