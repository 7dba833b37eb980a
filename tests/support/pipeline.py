"""Fixtures: a tiny RAM, built into a model repository and served by a real tritonserver."""

import fcntl
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import ram_triton.build
import torch
from filelock import FileLock
from PIL import Image
from ram_triton.build import BuildRequest, build
from ram_triton.cli import main
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.repository.layout import INT8_ENCODER, INT8_HEAD
from ram_triton.server import TritonServer, ports
from ram_triton.server_code import Vocabulary
from ram_triton.vocabulary.tag_lists import CHINESE, ENGLISH, THRESHOLDS, read_vocabulary

from support.golden_checkpoint import GOLDEN, golden_weights

NUM_TAGS = 40
PICTURES = Path(__file__).parents[2] / "build" / "demo" / "images"
HEADS = [model for model in ram_triton.build.GRAPHS if model != "ram_encoder"]
TIMEOUT = "default_timeout_microseconds: 2000000"
NICE = 'parameters { key: "nice" value { string_value: "19" } }'
FLOAT32 = 'parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "f32" } }\n'


def run_command(name: str, arguments: Iterable[object]) -> int:
    """Run a subcommand of `ram-triton` here, whose imports take longer than its work."""
    return main([name, *map(str, arguments)])


def use_float32(repository: Path) -> None:
    """Make the one setting in each engine's config, so that answers are PyTorch's to 1e-4."""
    for config in repository.glob("*/configs/cpu.pbtxt"):
        text = config.read_text()
        assert f"# {FLOAT32}" in text
        config.write_text(text.replace(f"# {FLOAT32}", FLOAT32))


def patient(config: str) -> str:
    """Return a config's text that lets pictures wait for long, and decodes them without delay."""
    config = config.replace(TIMEOUT, TIMEOUT.replace("2000000", "60000000"))
    return config.replace(NICE, NICE.replace("19", "0"))


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> None:
    """No two workers of a parallel run choose the same port before a server listens there."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = ports.FREE[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    start = random.randrange(len(share))
    ports._numbers = itertools.cycle([*share[start:], *share[:start]])


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """What the reference implementation computes: `pixels`, `embeds`, `logits`."""
    return dict(np.load(GOLDEN / "golden_tiny.npz"))


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a file or folder once for all workers of a parallel run: `make_once(name, make)`."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers' own folders are in it

    def make_it_once(name: str, make: Callable[[Path], None]) -> Path:
        path, unfinished = folder / name, folder / "unfinished" / name
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                unfinished.parent.mkdir(exist_ok=True)
                make(unfinished)
                unfinished.rename(path)
        return path

    return make_it_once


@pytest.fixture(scope="session")
def checkpoint(make_once) -> Path:
    """A tiny RAM checkpoint in the published format."""
    return make_once("tiny.pth", lambda path: torch.save({"model": golden_weights()}, path))


@pytest.fixture(scope="session")
def vocabulary_folder(tmp_path_factory) -> Path:
    """Tag lists for it as RAM publishes them: two tags share a Chinese name, one never passes."""
    folder = tmp_path_factory.mktemp("vocabulary")
    chinese = [f"标签{index}" for index in range(NUM_TAGS)]
    chinese[7] = chinese[3]
    # Low, as the scores of weights that are noise: every picture has some of the tags, not all.
    thresholds = [0.0002 * (1 + index % 9) for index in range(NUM_TAGS - 1)] + [1.0]
    (folder / ENGLISH).write_text("\n".join(f"tag {index}" for index in range(NUM_TAGS)))
    (folder / CHINESE).write_text("\n".join(name + " " for name in chinese) + "\n")
    (folder / THRESHOLDS).write_text("\n".join(f"{t:.4f}" for t in thresholds) + "\n")
    return folder


@pytest.fixture(scope="session")
def vocabulary(vocabulary_folder) -> Vocabulary:
    """The tags of the tiny RAM."""
    return read_vocabulary(vocabulary_folder, NUM_TAGS)


@pytest.fixture(scope="session")
def model(checkpoint) -> RAM:
    """The tiny RAM in PyTorch."""
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def repository(checkpoint, vocabulary_folder, make_once) -> Iterator[Path]:
    """A model repository into which the tiny RAM was built, to be served in float32.

    All workers of a parallel run read it. What builds into one takes `copied`.
    """

    def make(root: Path) -> None:
        build(BuildRequest(checkpoint, vocabulary_folder, root, PICTURES))
        use_float32(root)
        for config in root.glob("*/config.pbtxt"):  # no test is about seconds
            config.write_text(patient(config.read_text()))

    root = make_once("models", make)
    descriptor = os.open(root / "ram", os.O_RDONLY)
    # The lock that a build wants: a test that builds into it fails each time, not by chance.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield root
    os.close(descriptor)


def copy_models(source: Path, target: Path) -> Path:
    """Copy models while servers of other workers write what they compile beside them."""
    return shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def copied(repository, tmp_path) -> Path:
    """A copy of it, to be built into or spoiled."""
    return copy_models(repository, tmp_path / "models")


@contextmanager
def exports_of(repository: Path, anew: Sequence[str] = ()) -> Iterator[None]:
    """Spare builds the export of the tiny RAM, most of their time, but for the models `anew`."""

    def copy(model: RAM, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (repository / path.parts[-3] / "1").glob("model.onnx*"):
            shutil.copy(file, path.parent)

    exports = ram_triton.build.GRAPHS
    graphs = {model: export if model in anew else copy for model, export in exports.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ram_triton.build, "GRAPHS", graphs)
        yield


@pytest.fixture
def exported_before(repository) -> Iterator[None]:
    """Builds of the tiny RAM take the graphs of `repository`."""
    with exports_of(repository):
        yield


@pytest.fixture(scope="session")
def quantised(repository, checkpoint, vocabulary_folder, make_once) -> Path:
    """A repository with INT8 graphs of the tiny RAM, which its configs choose; read-only."""

    def make(root: Path) -> None:
        with exports_of(repository):
            build(BuildRequest(checkpoint, vocabulary_folder, root, PICTURES, int8=PICTURES))
        for path in (INT8_ENCODER, INT8_HEAD):
            config = root / path.parts[0] / "configs" / "cpu.pbtxt"
            text = config.read_text()
            assert 'default_model_filename: "model.onnx"' in text
            config.write_text(text.replace("model.onnx", "int8.xml", 1))

    return make_once("int8", make)


@pytest.fixture(scope="session")
def server(repository) -> Iterator[TritonServer]:
    """A tritonserver on free ports that serves the tiny RAM."""
    with TritonServer(repository) as running:
        yield running


@pytest.fixture(scope="session")
def picture_files() -> list[Path]:
    """Pictures drawn for the project, PNG and JPEG."""
    return sorted([*PICTURES.glob("*.png"), *PICTURES.glob("*.jpg")])


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """Encode a Pillow image: `encode(image, "PNG", **options)`."""

    def encode_image(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        buffer = BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return encode_image


@pytest.fixture
def photo() -> Image.Image:
    """A smooth RGB picture, wider than high, that differs under every turn and flip."""
    x, y = np.meshgrid(np.linspace(0, 1, 160), np.linspace(0, 1, 120))
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y * x), np.sin(9 * y + x * x)]
    return Image.fromarray((127 + 120 * np.stack(waves, -1)).astype(np.uint8))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost far more than tiny matrices do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
