"""Write a RAM checkpoint into the model repository, as ONNX graphs that were checked."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import interruption  # noqa: F401  (before the slow ones)
from ram.agreement import AgreementError
from ram.build import BuildRequest, build
from ram.checkpoint import CheckpointError
from ram.half_precision import PRECISIONS
from ram.int8 import Int8Error
from ram.pictures import PictureError
from ram.repository import RepositoryError
from ram.tag_lists import DEFAULT_THRESHOLD, VocabularyError, read_threshold
from ram.typed_graph import TypedGraphError
from ram.variant import BACKBONES

HERE = Path(__file__).resolve().parent


def main(command_line: Sequence[str] | None = None) -> int:
    """Build what the arguments say, or say in one line what is wrong; returns the exit status."""
    arguments = vars(parse_arguments(command_line))
    default_threshold = arguments.pop("default_threshold")
    try:
        threshold = read_threshold(default_threshold, "--default-threshold")
        build(BuildRequest(**arguments, default_threshold=threshold))
    except (
        CheckpointError, VocabularyError, RepositoryError, PictureError, AgreementError,
        TypedGraphError, Int8Error,
    ) as error:  # fmt: skip
        print(f"make model: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make model: interrupted, run it again", file=sys.stderr)
        return 130
    return 0


def parse_arguments(command_line: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments, named as the fields of `BuildRequest`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE",
        help="RAM checkpoint in the published format, .pth or .safetensors")  # fmt: skip
    add("--vocabulary", type=Path, required=True, metavar="DIR",
        help="folder with ram_tag_list.txt, ram_tag_list_chinese.txt and, if there is one, "
             "ram_tag_list_threshold.txt")  # fmt: skip
    add("--repository", type=Path, default=HERE.parent / "model_repository", metavar="DIR",
        help="model repository to write into, made if missing (default: this one's)")  # fmt: skip
    add("--backbone", choices=BACKBONES,
        help="what the weights must be; found out if not given")  # fmt: skip
    add("--image-size", type=int, metavar="PIXELS",
        help="what the weights must be for: 224, 384; found out if not given")  # fmt: skip
    add("--default-threshold", default=str(DEFAULT_THRESHOLD), metavar="SCORE",
        help="for vocabularies without a list of thresholds (default: %(default)s)")  # fmt: skip
    add("--precision", choices=PRECISIONS, default=PRECISIONS[0],
        help="of the graphs that TensorRT makes plans of (default: %(default)s)")  # fmt: skip
    add("--int8", type=Path, metavar="DIR",
        help="make INT8 graphs for the CPU too, calibrated on the pictures in DIR (some hundred of "
             "those that will be served)")  # fmt: skip
    add("--images", type=Path, default=HERE / "demo" / "images", metavar="DIR",
        help="pictures to check the graphs with (default: the demo's)")  # fmt: skip
    add("--note", metavar="TEXT", help="a line about this model, kept in its manifest")
    return parser.parse_args(command_line)


if __name__ == "__main__":
    sys.exit(main())
