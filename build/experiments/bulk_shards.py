"""Pictures in webdataset shards, for `experiments.bulk` and `experiments.ray_data`."""

import io
import shutil
import statistics
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT = 32  # pictures; the others differ from them in a comment only
PER_SHARD = 1000
SEED = 5


def make_shards(folder: Path, images: int, size: Sequence[int]) -> list[Path]:
    """Write webdataset shards of JPEGs, unless they are there; returns their paths."""
    shards = [folder / f"{first:07}.tar" for first in range(0, images, PER_SHARD)]
    done = folder / f"{images}-{size[0]}x{size[1]}.done"
    if done.exists():
        return shards
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers = iter(range(images))
    pictures = _pictures(size)
    for path in shards:
        with tarfile.open(path, "w") as shard:
            for number in islice(numbers, PER_SHARD):
                picture = pictures[number % DISTINCT]
                comment = b"\xff\xfe\x00\x12" + f"{number:016}".encode()
                member = tarfile.TarInfo(f"{number:07}.jpg")
                member.size = len(picture) + len(comment)
                shard.addfile(member, io.BytesIO(picture[:2] + comment + picture[2:]))
    done.touch()
    kilobytes = statistics.mean(map(len, pictures)) / 1000
    print(f"{images} pictures, {size[0]} x {size[1]} pixels, {kilobytes:.3g} kB on average")
    return shards


def _pictures(size: Sequence[int]) -> list[bytes]:
    """JPEGs of smooth colours and noise, about as large as photographs of their size."""
    generator = np.random.default_rng(SEED)
    found = []
    for _ in range(DISTINCT):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size[0], size[1]), Image.Resampling.BICUBIC), np.int16)
        noise = generator.integers(-14, 15, smooth.shape)
        buffer = io.BytesIO()
        picture = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(buffer, "JPEG", quality=88)
        found.append(buffer.getvalue())
    return found


def read_images(shards: Sequence[Path]) -> Iterator[bytes]:
    """Yield the encoded images of shards, in order."""
    for path in shards:
        with tarfile.open(path) as shard:
            for member in shard:
                if file := shard.extractfile(member):
                    yield file.read()
