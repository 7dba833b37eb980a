"""Plans on disk: what a plan was built of and for, whether it still fits, and writing one."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

from ram_triton.engines.cuda_device import Device, first_device
from ram_triton.engines.tensorrt import RTX, TENSORRT, Advance, Network, Options, load_tensorrt
from ram_triton.engines.tensorrt_version import loads_compatible
from ram_triton.errors import PlanError
from ram_triton.repository.configs import EngineConfig, Profile
from ram_triton.repository.layout import (
    FACTS,
    MANIFEST,
    MODELS,
    PLAN,
    TEXT_ENCODER,
    Engine,
)
from ram_triton.repository.repository import Repository, sha256

QUIET = 15.0  # seconds between lines if the output is not a terminal
# What plan.json calls the options.
OPTION_FACTS = {
    "level": "builder_level",
    "version_compatible": "version_compatible",
    "hardware_compatible": "hardware_compatible",
}
AMPERE = 8  # first compute capability of hardware-compatible plans


QUIET = 15.0  # seconds between lines if the output is not a terminal


@dataclass(frozen=True)
class PlanBuilder:
    """Makes plans of a repository's half-precision graphs, for one GPU and one TensorRT.

    Attributes:
        repository: where the graphs are, and the plans go.
        trt: TensorRT's module; not RTX's, whose engines are no plans.
        device: the GPU.
        options: how to build.
        say: called with a line when something is done.
    """

    repository: Repository
    trt: ModuleType
    device: Device
    options: Options
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        """Refuse TensorRT-RTX.

        Raises:
            PlanError: `trt` is not TensorRT.
        """
        if not hasattr(self.trt, "__version__") or "rtx" in self.trt.__name__:
            raise PlanError("engines of TensorRT-RTX are no plans: Triton does not load them")

    def make(self, graph: Path, advance: Advance, force: bool = False) -> bool:
        """Build the plan of one of `graphs_of`, unless there is one that fits.

        Returns:
            Whether it was built.

        Raises:
            PlanError: the graph is missing.
            EngineConfigError, EngineError: the config does not fit, or TensorRT gives up.
            RepositoryError: another build is writing, or the folder cannot be written.
        """
        path = self.repository.root / graph
        model = graph.parts[0]
        network, profile = parse(self.trt, self.repository.root, graph)
        facts = self._facts(path, profile.as_dict())
        if not force and fits(path.parent, facts, self.options):
            self.say(f"{model}: the plan fits this GPU, TensorRT and config")
            return False
        # For all of the building, so that nobody changes the graph beneath it.
        with self.repository.staging() as staging:
            cache = self._cache_file()
            measured = cache.read_bytes() if cache.is_file() else b""
            engine, measured = network.build(profile, self.options, measured, advance)
            (staging / cache.name).write_bytes(measured)
            (staging / cache.name).replace(cache)
            install(staging, path.parent, engine, facts)
        self.say(f"{model}: {path.parent / PLAN}, {len(engine) / 2**20:.0f} MiB")
        return True

    def _facts(self, graph: Path, profiles: dict) -> dict:
        half = (self.repository.manifest() or {}).get("half")
        precision = half.get("precision") if isinstance(half, dict) else None
        # Models of one shape have the same graph: what tells them apart lies beside it.
        weights = graph.with_name(f"{graph.name}.data")
        return {
            "graph_sha256": sha256(graph),
            "weights_sha256": sha256(weights) if weights.is_file() else None,
            "tensorrt": self.trt.__version__,
            "flavour": TENSORRT,
            "gpu": self.device.name,
            "compute_capability": self.device.compute_capability,
            "precision": "float32" if graph.name == TEXT_ENCODER.name else precision,
            "profiles": profiles,
            "builder_level": self.options.level,
            "version_compatible": self.options.version_compatible,
            "hardware_compatible": self.options.hardware_compatible,
        }

    def _cache_file(self) -> Path:
        """Where the builder's measurements are kept: they hold for one TensorRT and GPU."""
        capability = self.device.compute_capability
        name = f"timing-{self.trt.__version__}-{capability}.cache"
        return (self.repository.root / MANIFEST).with_name(name)


def graphs_of(root: Path) -> list[Path]:
    """Return the graphs that a repository needs plans of."""
    return [
        model.plan_graph
        for model in MODELS.values()
        if model.engine is Engine.GRAPH and (not model.optional or (root / model.name).is_dir())
    ]


def parse(trt: ModuleType, root: Path, graph: Path) -> tuple[Network, Profile]:
    """Have TensorRT read one of `graphs_of`, and compare it with its config.

    Args:
        trt: TensorRT's module, or TensorRT-RTX's.
        root: the model repository.
        graph: where the graph is in it.

    Returns:
        The network, and the shapes that its config asks for.

    Raises:
        PlanError: the graph is missing.
        EngineConfigError, EngineError: the config does not fit, or TensorRT does not take it.
    """
    path = root / graph
    if not path.is_file():
        raise PlanError(
            f"{path} is missing: run 'make model' first, with PRECISION=float16 or bfloat16"
        )
    config = EngineConfig.read(root / graph.parts[0] / "config.pbtxt")
    network = Network(trt, path)
    config.check(network.bindings)
    return network, config.profile(network.bindings)


def fits(folder: Path, wanted: dict, options: Options) -> bool:
    """Tell whether a version folder's plan runs here, and has every option that was asked for.

    Args:
        folder: holds `model.plan` and `plan.json`.
        wanted: the facts that a plan built now would have.
        options: those that are not the defaults were asked for.
    """
    try:
        found = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        plan = sha256(folder / PLAN)
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or found.get("plan_sha256") != plan:
        return False
    same = {name for name in wanted if found.get(name) == wanted[name]}
    if found.get("hardware_compatible") and int(wanted["compute_capability"][:-2]) >= AMPERE:
        same |= {"gpu", "compute_capability"}
    if found.get("version_compatible") and loads_compatible(
        wanted["tensorrt"], str(found.get("tensorrt"))
    ):
        same.add("tensorrt")
    defaults = asdict(Options())
    asked = {name for name, value in asdict(options).items() if value != defaults[name]}
    return wanted.keys() <= same | {OPTION_FACTS[name] for name in defaults.keys() - asked}


def install(staging: Path, folder: Path, engine: bytes | memoryview, facts: dict) -> None:
    """Bring a plan and its facts into a version folder, so that a plan never has another's facts.

    Args:
        staging: a folder on the same file system.
        folder: the model's version folder.
        engine: the plan.
        facts: what `plan.json` says, but for the plan's own hash.
    """
    (staging / PLAN).write_bytes(engine)
    facts = {"plan_sha256": sha256(staging / PLAN)} | facts
    (staging / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    # A plan without its facts is built again: the right end of an interruption.
    (folder / FACTS).unlink(missing_ok=True)
    for name in (PLAN, FACTS):
        (staging / name).replace(folder / name)


def make_plans(repository: Path, options: Options, force: bool) -> None:
    """Make what does not fit yet.

    Raises:
        EngineError, MachineError, EngineConfigError, PlanError, RepositoryError: it cannot be made.
    """
    builder = PlanBuilder(Repository(repository), load_tensorrt(), first_device(), options)
    for graph in graphs_of(repository):
        with ProgressLine(graph.parts[0]) as progress:
            replace(builder, say=progress.say).make(graph, progress, force)


def try_graphs(repository: Path) -> None:
    """Build engines with TensorRT-RTX, and keep none.

    Raises:
        EngineError, EngineConfigError, PlanError: a graph cannot be built.
    """
    trt = load_tensorrt(RTX)
    for graph in graphs_of(repository):
        with ProgressLine(graph.parts[0]) as progress:
            network, profile = parse(trt, repository, graph)
            network.build(profile, advance=progress)
        print(
            f"{graph.parts[0]}: TensorRT-RTX {trt.__version__} builds it for batches of "
            f"{profile.min[0]} to {profile.max[0]}, fastest at {profile.opt[0]}; no plan is written"
        )


class ProgressLine:
    """One line on stderr that tells how far a build is; a context manager."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.started = self.told = time.monotonic()
        self.width = 0

    def __call__(self, phase: str, share: float) -> None:
        """Tell what is being done and how much of it is done, 0 to 1."""
        now = time.monotonic()
        text = f"{self.model}: {now - self.started:.0f} s, {phase.lower()}, {share:.0%}"
        if sys.stderr.isatty():
            sys.stderr.write("\r" + text.ljust(self.width))
            sys.stderr.flush()
            self.width = len(text)
        elif now - self.told >= QUIET:
            print(text, file=sys.stderr, flush=True)
            self.told = now

    def say(self, text: str) -> None:
        """Print a line on stdout, in the place of this one."""
        self.clear()
        print(text, flush=True)

    def clear(self) -> None:
        """Take the line away: the next one starts where it stood."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
