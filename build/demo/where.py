"""Draw docs/img/where.webp: two of the demo's pictures side by side, and where their tags are.

`python -m demo.where` serves the demo's model for it.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from ram_client import RamClient
from ram_client.sinks.overlays import QUALITY, draw
from ram_triton.cli import guarded
from ram_triton.server import TritonServer

from demo.ready_graphs import install

IMAGES = Path(__file__).parent / "images"
TARGET = Path(__file__).resolve().parents[2] / "docs" / "img" / "where.webp"
PICTURES = ("car_and_mountain.png", "cat.png")
SIDE = 160  # pixels
TAGS = 3


def side_by_side() -> Image.Image:
    """Return both pictures in one."""
    joined = Image.new("RGB", (SIDE * len(PICTURES), SIDE))
    for place, name in enumerate(PICTURES):
        with Image.open(IMAGES / name) as picture:
            joined.paste(picture.convert("RGB").resize((SIDE, SIDE)), (place * SIDE, 0))
    return joined


def main() -> None:
    """Serve, ask, and draw."""
    picture = side_by_side()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder, "models"))
        with TritonServer(Path(folder, "models")) as server, RamClient(server.grpc) as client:
            tags = client.tag(picture, top_k=TAGS, where=True)
    draw(picture, tags).save(TARGET, quality=QUALITY)
    print(f"{TARGET}: {', '.join(tag.name for tag in tags)}, {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(guarded("python -m demo.where", main))
