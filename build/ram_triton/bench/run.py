"""A benchmark from its settings to its result."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpc

from ram_triton.bench.answers import Reference
from ram_triton.bench.compute import INT8, count_products, matrix_product
from ram_triton.bench.contest import Competitor, hold
from ram_triton.bench.decoding import QUALITY, WEB, measure_decoding, sample_pictures
from ram_triton.bench.device import Device
from ram_triton.bench.machine import cores, describe_machine, peak_memory
from ram_triton.bench.photographs import encode, make_picture
from ram_triton.bench.postprocessing import measure_postprocessing
from ram_triton.bench.result import Result
from ram_triton.bench.ways import (
    ENGINE,
    GRPC,
    PYTORCH,
    Client,
    load_engine,
    preprocessor_competitor,
    pytorch_tagger,
    tagger_competitor,
)
from ram_triton.engines.pytorch import onnx_tagger
from ram_triton.engines.pytorch import run as tag_all
from ram_triton.errors import BenchmarkError
from ram_triton.graphs.int8 import LIMITS as INT8_LIMITS
from ram_triton.model.checkpoint import load_model
from ram_triton.model.variant import Variant
from ram_triton.parity.compare import FLOAT32
from ram_triton.parity.limits import LIMITS
from ram_triton.parity.pictures import picture_batches, picture_files
from ram_triton.repository import layout
from ram_triton.repository.repository import Repository, sha256
from ram_triton.server import TritonServer
from ram_triton.server_code import Vocabulary, preprocess

PHOTOGRAPHS = 8  # as many as the largest default batch, so that none is in it twice


@dataclass(frozen=True)
class Settings:
    """What to measure; `build/bench.py --help` tells of each."""

    repository: Path
    checkpoint: Path | None
    server: str | None
    images: Path | None
    concurrencies: tuple[int, ...]
    batches: tuple[int, ...]
    repeats: int
    seconds: float
    shrink: int
    seed: int


def run(settings: Settings, tell: Callable[[Competitor, int], None]) -> Result:
    """Measure everything.

    Raises:
        BenchmarkError, CheckpointError, PictureError: something does not fit the repository.
        EngineError, EngineConfigError: the engine cannot be loaded.
        ServerError, InferenceServerException: the server does not start, or refuses a request.
        ParityError: something that was timed gave one.
    """
    manifest = read_manifest(settings)
    variant = Variant.from_dict(manifest["variant"])
    size = variant.image_size
    vocabulary = Vocabulary.load(settings.repository / layout.VOCABULARY)
    random = np.random.default_rng(settings.seed)
    pictures, pixels = read_pictures(settings, size)
    device = Device.choose(settings.repository, settings.server)
    engine, precision = load_engine(settings.repository, device.name)
    if precision == "plans":
        precision = manifest["half"]["precision"]  # plans are made of these graphs alone
    singly = [pixels[index : index + 1] for index in range(len(pixels))]
    pytorch = None
    if settings.checkpoint:
        model = load_model(settings.checkpoint)
        pytorch = pytorch_tagger(model, device.name)
    graphs = settings.repository / layout.ENCODER, settings.repository / layout.HEAD
    exact = pytorch or onnx_tagger(*graphs)
    limits = {"float32": FLOAT32, INT8: INT8_LIMITS, **LIMITS}[precision]
    reference = Reference(tag_all(exact, singly), vocabulary)
    with _served(settings) as (server, address), grpc.InferenceServerClient(address) as triton:
        client = Client(triton, pictures)
        logits = client.logits()
        served = reference.accept(GRPC, logits, limits)
        alone = reference.accept(ENGINE, tag_all(engine, singly), limits)
        competitors = [
            tagger_competitor(way, name, tagger, pixels, batch, expected)
            for batch in settings.batches
            for way, name, tagger, expected in (
                (PYTORCH, "float32", pytorch, reference),
                (ENGINE, precision, engine, alone),
            )
            if tagger
        ]
        competitors += [
            client.competitor(precision, batch, clients, served)
            for batch, clients in itertools.product(settings.batches, settings.concurrencies)
        ]
        multiply, per_product = matrix_product(precision, device.name, settings.shrink)
        product = Competitor(
            "matrix product", precision, 1, 1, 1, lambda _: multiply(), lambda *_: None
        )
        hold([*competitors, product], settings.repeats, settings.seconds, random, tell)
        samples = list(sample_pictures(settings.shrink))
        name, encoded = samples[0]
        preprocessor = [
            preprocessor_competitor(triton, name, encoded, preprocess(encoded, size), clients)
            for clients in sorted({1, cores()})
        ]
        hold(preprocessor, settings.repeats, settings.seconds, random, tell)
        measure = partial(
            measure_decoding, image_size=size, repeats=settings.repeats, random=random
        )
        return Result(
            machine=describe_machine(triton.get_server_metadata().version, device),
            model={
                "variant": str(variant),
                "checkpoint": manifest["checkpoint"],
                "note": manifest["note"],
            },
            settings={name: str(value) for name, value in asdict(settings).items()},
            agreement=reference.compare(logits),
            competitors=competitors,
            product=product,
            products=(per_product, count_products(variant)),
            preprocessor=preprocessor,
            decodings=[measure(*sample) for sample in samples],
            postprocessing=measure_postprocessing(vocabulary, settings.repeats, random),
            memory=peak_memory(server) if server else None,
        )


def read_manifest(settings: Settings) -> dict:
    """Return the repository's manifest, once graphs and checkpoint are known to be its own.

    Raises:
        BenchmarkError: there is none, or something is not what it says.
    """
    root, checkpoint = settings.repository, settings.checkpoint
    manifest = Repository(root).manifest()
    if manifest is None:
        raise BenchmarkError(f"{root}: holds no model, run 'make model' or 'make demo' first")
    if checkpoint is None:  # then the graphs are the reference
        for name, expected in manifest["artefacts"].items():
            path = root / name
            if path.name.startswith("model.onnx") and sha256(path) != expected:
                raise BenchmarkError(f"{path}: is not the graph that was built and compared")
    elif not checkpoint.is_file():
        raise BenchmarkError(f"{checkpoint}: no such file")
    elif sha256(checkpoint) != manifest["checkpoint"]["sha256"]:
        raise BenchmarkError(f"{checkpoint}: is not the checkpoint that {root} was built of")
    return manifest


def read_pictures(settings: Settings, image_size: int) -> tuple[list[bytes], np.ndarray]:
    """Return encoded pictures, those of a folder or photographs made here, and their pixels.

    The pixels are (pictures, image_size, image_size, 3) uint8.

    Raises:
        PictureError: the folder holds none, or one that cannot be read.
    """
    if settings.images:
        pixels = np.concatenate(list(picture_batches(settings.images, image_size, (1,))))
        return [path.read_bytes() for path in picture_files(settings.images)], pixels
    photographs = [
        encode(make_picture(*WEB, seed=seed), "JPEG", quality=QUALITY)
        for seed in range(PHOTOGRAPHS)
    ]
    return photographs, np.stack([preprocess(each, image_size) for each in photographs])


@contextlib.contextmanager
def _served(settings: Settings) -> Iterator[tuple[TritonServer | None, str]]:
    """Yield a server and its gRPC address; no server where it was started elsewhere."""
    if settings.server:
        yield None, settings.server
        return
    with TritonServer(settings.repository) as server:
        yield server, server.grpc


def require_writable(folder: Path) -> None:
    """Make a folder, and check that files can be written there, before anything takes long.

    Raises:
        BenchmarkError: they cannot; the message says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchmarkError(f"{folder}: cannot be written ({error.strerror})") from error
