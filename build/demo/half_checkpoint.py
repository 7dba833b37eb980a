"""Write a checkpoint's weights in half precision, which makes the file half as large."""

import argparse
import sys
from pathlib import Path

import torch
from ram_triton.cli import run_module
from ram_triton.errors import CheckpointError
from ram_triton.files import require_writable_file, write_atomically
from ram_triton.model.checkpoint import read_weights
from safetensors.torch import save_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("output", type=Path, metavar="OUTPUT.safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Convert the weights, and write them whole or not at all."""
    source, output = arguments.checkpoint, arguments.output
    require_writable_file(output)
    weights = {name: tensor.half() for name, tensor in read_weights(source).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{source}: '{name}' is beyond half precision's range")
    write_atomically(output, lambda unfinished: save_file(weights, unfinished))
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(run_module("demo.half_checkpoint", sys.modules[__name__]))
