"""Build a model repository from a RAM checkpoint: ONNX graphs, compared with PyTorch, installed."""

import argparse
from pathlib import Path

from ram_triton.arguments import add_repository
from ram_triton.model.variant import BACKBONES
from ram_triton.model.weight_files import weight_files
from ram_triton.parity.pictures import picture_files
from ram_triton.repository.layout import DEMO_IMAGES, PRECISIONS
from ram_triton.vocabulary.tag_lists import DEFAULT_THRESHOLD, read_columns, read_threshold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, named as the fields of `BuildRequest`."""
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="RAM or RAM++ checkpoint, .pth or .safetensors, or a folder with its parts",
    )
    add(
        "--vocabulary",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with ram_tag_list.txt, ram_tag_list_chinese.txt and, if there is one, "
        "ram_tag_list_threshold.txt",
    )
    add_repository(parser, "model repository to write into, made if missing")
    add("--backbone", choices=BACKBONES, help="what the weights must be (default: detected)")
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="what the weights must be for, 224 or 384 (default: detected)",
    )
    add(
        "--default-threshold",
        default=str(DEFAULT_THRESHOLD),
        metavar="SCORE",
        help="for vocabularies without a list of thresholds (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="precision of the graphs that TensorRT makes plans of (default: %(default)s)",
    )
    add(
        "--int8",
        type=Path,
        metavar="DIR",
        help="make INT8 graphs for the CPU too, calibrated on the pictures in DIR: a few hundred, "
        "like those to be served",
    )
    add(
        "--images",
        type=Path,
        default=DEMO_IMAGES,
        metavar="DIR",
        help="pictures to check the graphs with (default: the demo's)",
    )
    add("--note", metavar="TEXT", help="a remark on the model, kept in its manifest")


def run(arguments: argparse.Namespace) -> None:
    """Build what the arguments specify."""
    fields = vars(arguments)
    threshold = read_threshold(fields.pop("default_threshold"), "--default-threshold")

    weight_files(arguments.checkpoint)  # these come before the imports that take seconds
    read_columns(arguments.vocabulary)
    for folder in filter(None, (arguments.images, arguments.int8)):
        picture_files(folder)

    from ram_triton.build import BuildRequest, build

    build(BuildRequest(**fields, default_threshold=threshold))
