"""A benchmark from its settings to its result."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ram_client.protocol import tag_request
from tritonclient.grpc import InferResult

from ram_triton.bench.candidates import (
    ENGINE,
    GRPC,
    PRODUCT,
    PYTORCH,
    Candidate,
    Expected,
    TritonCandidate,
    preprocessor_candidate,
    run_rounds,
)
from ram_triton.bench.machine import (
    INT8,
    Device,
    cores,
    count_products,
    describe_machine,
    matrix_product,
    peak_memory,
)
from ram_triton.bench.preprocessing import (
    QUALITY,
    WEB,
    encode,
    make_picture,
    measure_decoding,
    measure_postprocessing,
    sample_pictures,
)
from ram_triton.bench.report import Result
from ram_triton.engines.openvino import CompiledGraph, openvino_tagger, served_graphs
from ram_triton.engines.tagger import Logits, Tagger, chain, tag_all, torch_tagger
from ram_triton.engines.tensorrt import TENSORRT, load_tensorrt
from ram_triton.engines.tensorrt_runner import LoadedEngine, chain_on_gpu
from ram_triton.errors import BenchmarkError
from ram_triton.files import sha256
from ram_triton.model.checkpoint import load_model
from ram_triton.model.variant import Variant
from ram_triton.parity.compare import Agreement, compare
from ram_triton.parity.files import read_repository, require_checkpoint
from ram_triton.parity.limits import FLOAT32_LIMITS, HALF_LIMITS, INT8_LIMITS
from ram_triton.parity.pictures import picture_batches, picture_files
from ram_triton.parity.server import Deployment
from ram_triton.repository import layout
from ram_triton.server import TritonServer
from ram_triton.server_code import Vocabulary, preprocess

PHOTOGRAPHS = 8  # as many as the largest default batch, so that none is in it twice

# Called before each turn with the candidate and the number of its round, 0 while warming up.
Show = Callable[[Candidate, int], None]


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        repository: the model repository.
        checkpoint: the one that it was built from, for PyTorch; None leaves PyTorch out, and the
            float32 graphs become the reference.
        server: gRPC address of a server with this repository; None starts one on the CPU.
        images: folder of pictures to tag; None makes photographs of 2 megapixels.
        concurrencies: how many requests are on their way to the server at once.
        batches: pictures per request.
        rounds: how often everything is timed.
        seconds: of one candidate in one round.
        shrink: divides the sides of the preprocessor's pictures and of the machine's matrices.
        seed: of the order of each round.
    """

    repository: Path
    checkpoint: Path | None
    server: str | None
    images: Path | None
    concurrencies: tuple[int, ...]
    batches: tuple[int, ...]
    rounds: int
    seconds: float
    shrink: int
    seed: int

    @property
    def turns(self) -> int:
        """How many turns of `seconds` all rounds have together."""
        taggers = 2 if self.checkpoint else 1
        compared = len(self.batches) * (taggers + len(self.concurrencies))
        return self.rounds * (compared + 1 + len(preprocessor_clients()))  # 1: matrix product


@dataclass(frozen=True)
class Inputs:
    """All that the settings name, read and checked.

    Attributes:
        manifest: the repository's.
        vocabulary: its tags.
        variant: sizes of its model.
        pictures: encoded.
        pixels: of the pictures, (pictures, size, size, 3) uint8.
        device: what everything is computed on.
    """

    manifest: dict[str, Any]
    vocabulary: Vocabulary
    variant: Variant
    pictures: Sequence[bytes]
    pixels: npt.NDArray[np.uint8]
    device: Device

    @classmethod
    def read(cls, settings: Settings) -> "Inputs":
        """Read the repository and the pictures.

        Raises:
            RepositoryError, ParityError: there is no model, or it is not of this checkpoint.
            BenchmarkError: a graph is not the one that was built.
            PictureError: the folder has no pictures, or one cannot be read.
        """
        manifest, vocabulary = read_repository(settings.repository)
        if settings.checkpoint:
            require_checkpoint(settings.checkpoint, manifest)
        else:
            require_built_graphs(settings.repository, manifest)
        variant = Variant.from_dict(manifest["variant"])
        pictures, pixels = read_pictures(settings.images, variant.image_size)
        device = Device.choose(settings.repository, settings.server)
        return cls(manifest, vocabulary, variant, pictures, pixels, device)


def require_built_graphs(root: Path, manifest: dict[str, Any]) -> None:
    """Check that the float32 graphs are those that the build compared with PyTorch.

    Raises:
        BenchmarkError: one is not.
    """
    for name, expected in manifest["artefacts"].items():
        path = root / name
        if path.name.startswith(layout.FLOAT32_GRAPH) and sha256(path) != expected:
            raise BenchmarkError(f"{path}: is not the graph that was built and compared")


def read_pictures(
    folder: Path | None, image_size: int
) -> tuple[Sequence[bytes], npt.NDArray[np.uint8]]:
    """Return encoded pictures, those of a folder or photographs made here, and their pixels.

    The pixels are (pictures, image_size, image_size, 3) uint8.

    Raises:
        PictureError: the folder has no pictures, or one that cannot be read.
    """
    if folder:
        pixels = np.concatenate(list(picture_batches(folder, image_size, (1,))))
        return [path.read_bytes() for path in picture_files(folder)], pixels
    photographs = [
        encode(make_picture(*WEB, seed=seed), "JPEG", quality=QUALITY)
        for seed in range(PHOTOGRAPHS)
    ]
    return photographs, np.stack([preprocess(each, image_size) for each in photographs])


def run(settings: Settings, log: Callable[[str], None], show: Show) -> Result:
    """Measure everything.

    Args:
        settings: what to measure.
        log: called with a line before anything takes long.
        show: called before each turn.

    Raises:
        BenchmarkError, RepositoryError, CheckpointError, PictureError: something does not fit the
            repository.
        EngineError, EngineConfigError: the engine cannot be loaded.
        ServerError: the server does not start, or refuses a request.
        ParityError: an answer is wrong.
    """
    inputs = Inputs.read(settings)
    log(
        f"{settings.turns} turns of {settings.seconds:g} s take at least "
        f"{settings.turns * settings.seconds / 60:.1f} minutes, more if a request takes longer"
    )
    random = np.random.default_rng(settings.seed)
    with (
        running_server(settings) as (server, address),
        Deployment(address, server.key if server else None) as deployment,
    ):
        candidates, agreement, precision = make_candidates(settings, inputs, deployment)
        multiply, per_product = matrix_product(precision, inputs.device.name, settings.shrink)
        product = Candidate(PRODUCT, precision, 1, 1, 1, lambda _: multiply(), lambda *_: None)
        run_rounds([*candidates, product], settings.rounds, settings.seconds, random, show)
        samples = list(sample_pictures(settings.shrink))
        size = inputs.variant.image_size
        name, encoded = samples[0]
        preprocessor = [
            preprocessor_candidate(deployment, name, encoded, preprocess(encoded, size), clients)
            for clients in preprocessor_clients()
        ]
        run_rounds(preprocessor, settings.rounds, settings.seconds, random, show)
        return Result(
            machine=describe_machine(deployment.version(), inputs.device),
            model={
                "variant": str(inputs.variant),
                "checkpoint": inputs.manifest["checkpoint"],
                "note": inputs.manifest["note"],
            },
            settings={name: str(value) for name, value in asdict(settings).items()},
            agreement=agreement,
            candidates=candidates,
            product=product,
            products=(per_product, count_products(inputs.variant)),
            preprocessor=preprocessor,
            decodings=[
                measure_decoding(name, encoded, size, settings.rounds, random)
                for name, encoded in samples
            ],
            postprocessing=measure_postprocessing(inputs.vocabulary, settings.rounds, random),
            memory=peak_memory(server) if server else None,
        )


def make_candidates(
    settings: Settings, inputs: Inputs, deployment: Deployment
) -> tuple[list[Candidate], Agreement, str]:
    """Load PyTorch and the engine, and compare what they and the server answer to each picture.

    Returns:
        The candidates, how far the server's logits agree with PyTorch's, and what the engine
        computes in.

    Raises:
        ParityError: an answer differs by more than the limits.
    """
    device, pixels = inputs.device.name, inputs.pixels
    singly = [pixels[index : index + 1] for index in range(len(pixels))]
    engine, precision = load_engine(settings.repository, inputs.manifest, device)
    if settings.checkpoint:
        pytorch = torch_tagger(load_model(settings.checkpoint), device)
        exact = tag_all(pytorch, singly)
    else:
        pytorch = None
        graphs = settings.repository / layout.ENCODER, settings.repository / layout.HEAD
        exact = tag_all(openvino_tagger(*graphs), singly)
    limits = {"float32": FLOAT32_LIMITS, INT8: INT8_LIMITS, **HALF_LIMITS}[precision]
    logits = np.concatenate([deployment.answer([each])[1] for each in inputs.pictures])
    from_server = Expected.accept(GRPC, exact, logits, limits)
    from_engine = Expected.accept(ENGINE, exact, tag_all(engine, singly), limits)
    from_pytorch = Expected(exact, FLOAT32_LIMITS.logit_difference)
    pictures, vocabulary = inputs.pictures, inputs.vocabulary

    def tagger_candidate(
        name: str, computed_in: str, tagger: Tagger, batch: int, expected: Expected
    ) -> Candidate:
        def ask(numbers: Sequence[int]) -> Logits:
            return tagger(pixels[list(numbers)])

        check = expected.find_wrong_logit
        return Candidate(name, computed_in, batch, 1, len(pixels), ask, check)

    def ask_server(numbers: Sequence[int]) -> InferResult:
        return deployment.infer(tag_request([pictures[number] for number in numbers]))

    candidates: list[Candidate] = []
    for batch in settings.batches:
        if pytorch:
            candidates.append(tagger_candidate(PYTORCH, "float32", pytorch, batch, from_pytorch))
        candidates.append(tagger_candidate(ENGINE, precision, engine, batch, from_engine))
    check_server = partial(from_server.find_wrong_tag, vocabulary)
    for batch, clients in itertools.product(settings.batches, settings.concurrencies):
        asked = GRPC, precision, batch, clients, len(pictures)
        candidates.append(TritonCandidate(*asked, ask_server, check_server, deployment=deployment))
    return candidates, compare(exact, logits, vocabulary), precision


def load_engine(repository: Path, manifest: Mapping[str, Any], device: str) -> tuple[Tagger, str]:
    """Load what the server runs: plans on `cuda`, the graphs that the CPU profile names on `cpu`.

    Returns:
        The engine as a function of pixels, and what it computes in.

    Raises:
        EngineError: TensorRT is missing, a plan cannot be loaded, or a graph is missing.
        EngineConfigError: a config cannot be read.
    """
    graphs = (layout.ENCODER, layout.HEAD)
    if device == "cuda":
        plans = [repository / graph.with_name(layout.PLAN) for graph in graphs]
        trt = load_tensorrt(TENSORRT)
        engines = (LoadedEngine(trt, plan.read_bytes(), str(plan)) for plan in plans)
        # Plans are made of the half-precision graphs alone.
        return chain_on_gpu(*engines), manifest["half"]["precision"]
    served = served_graphs(repository)
    encoder, head = (CompiledGraph(path, properties) for path, properties in served)
    is_int8 = any(path.name == layout.INT8_GRAPH for path, _ in served)
    return chain(encoder, head), INT8 if is_int8 else encoder.precision


def preprocessor_clients() -> list[int]:
    """Return for how many clients the served preprocessor is measured: one, and one per core."""
    return sorted({1, cores()})


@contextlib.contextmanager
def running_server(settings: Settings) -> Iterator[tuple[TritonServer | None, str]]:
    """Yield a server and its gRPC address; no server if it was started elsewhere."""
    if settings.server:
        yield None, settings.server
        return
    with TritonServer(settings.repository) as server:
        yield server, server.grpc
