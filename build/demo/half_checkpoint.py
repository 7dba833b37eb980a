"""Write a checkpoint's weights in half precision, half as large."""

import sys
from pathlib import Path

import torch
from ram_triton.errors import CheckpointError
from ram_triton.files import write_atomically
from ram_triton.model.checkpoint import read_weights
from safetensors import SafetensorError
from safetensors.torch import save_file


def main() -> int:
    """Read the arguments: a checkpoint, and the .safetensors file to write."""
    if len(sys.argv) != 3:
        print("usage: make_half_checkpoint.py CHECKPOINT OUTPUT.safetensors", file=sys.stderr)
        return 2
    source, output = map(Path, sys.argv[1:])
    try:
        weights = {name: tensor.half() for name, tensor in read_weights(source).items()}
        too_large = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        if too_large:
            raise CheckpointError(f"{source}: '{too_large[0]}' is beyond half precision's range")
        write_atomically(output, lambda unfinished: save_file(weights, unfinished))
    except CheckpointError as error:
        print(f"make_half_checkpoint: {error}", file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as error:
        print(f"make_half_checkpoint: {output}: cannot be written ({error})", file=sys.stderr)
        return 1
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
