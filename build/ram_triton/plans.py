"""Make TensorRT plans of a repository's graphs, or try whether they can be made."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from ram_triton.engines.tensorrt import RTX, BuilderOptions, Network, Progress, load_tensorrt
from ram_triton.errors import PlanError
from ram_triton.files import sha256
from ram_triton.gpus import Gpu, first_gpu
from ram_triton.plan_facts import PlanFacts, differences, wanted_facts
from ram_triton.progress import status_line
from ram_triton.repository.configs import EngineConfig, Profile
from ram_triton.repository.layout import FACTS, MANIFEST, PLAN, Model, planned_models
from ram_triton.repository.repository import Repository


def parse(trt: ModuleType, root: Path, model: Model) -> tuple[Network, Profile]:
    """Have TensorRT read a model's graph, and compare it with its config.

    Args:
        trt: TensorRT's module, or TensorRT-RTX's.
        root: the model repository.
        model: one that TensorRT runs.

    Returns:
        The network, and the shapes that its config asks for.

    Raises:
        PlanError: the graph is missing.
        EngineConfigError: the graph does not fit the config.
        EngineError: TensorRT refuses the graph.
    """
    path = root / model.plan_graph
    if not path.is_file():
        raise PlanError(
            f"{path} is missing: run 'make model' first, with PRECISION=float16 or bfloat16"
        )
    config = EngineConfig.read(root / model.name / "config.pbtxt")
    network = Network(trt, path)
    config.check(network.bindings)
    return network, config.profile(network.bindings)


@dataclass(frozen=True)
class PlanBuilder:
    """Makes plans of a repository's graphs, for one GPU and one TensorRT.

    Attributes:
        repository: the repository with the graphs, into which the plans go.
        trt: the module of TensorRT, not of TensorRT-RTX: its engines are not plans.
        gpu: the GPU that will run them.
        options: how to build.
    """

    repository: Repository
    trt: ModuleType
    gpu: Gpu
    options: BuilderOptions

    def __post_init__(self) -> None:
        """Refuse TensorRT-RTX.

        Raises:
            PlanError: `trt` is not TensorRT.
        """
        if not hasattr(self.trt, "__version__") or "rtx" in self.trt.__name__:
            raise PlanError("TensorRT-RTX engines are not Triton plans")

    def make(self, model: Model, progress: Progress, force: bool = False) -> str:
        """Build a model's plan, unless there is one that fits.

        Args:
            model: one that TensorRT runs.
            progress: called as the build proceeds.
            force: build it in any case.

        Returns:
            What was done, in one line.

        Raises:
            PlanError: the graph is missing.
            EngineConfigError: the graph does not fit the config.
            EngineError: TensorRT refuses the graph or gives up.
            RepositoryError: another build is writing, or the folder cannot be written.
        """
        folder = self.repository.root / model.name / "1"
        if not force and fits(folder, self._read(model)[2]):
            return f"{model.name}: the plan fits this GPU, TensorRT and config"
        # The graph is read from here on, so that no build replaces it meanwhile.
        with self.repository.staging() as staging:
            network, profile, wanted = self._read(model)
            cache = self._cache_file()
            measured = cache.read_bytes() if cache.is_file() else b""
            engine, measured = network.build(profile, self.options, measured, progress)
            (staging / cache.name).write_bytes(measured)
            (staging / cache.name).replace(cache)
            install(staging, folder, engine, wanted)
        return f"{model.name}: {folder / PLAN}, {len(engine) / 2**20:.0f} MiB"

    def _read(self, model: Model) -> tuple[Network, Profile, PlanFacts]:
        """Return a model's network, its shapes, and the facts of the plan that it wants."""
        root = self.repository.root
        network, profile = parse(self.trt, root, model)
        wanted = replace(
            wanted_facts(root, model, profile, self.repository.manifest() or {}),
            tensorrt=self.trt.__version__,
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            options=self.options,
        )
        return network, profile, wanted

    def _cache_file(self) -> Path:
        """Return the file of the builder's measurements, which are of one TensorRT and GPU."""
        name = f"timing-{self.trt.__version__}-{self.gpu.compute_capability}.cache"
        return (self.repository.root / MANIFEST).with_name(name)


def fits(folder: Path, wanted: PlanFacts) -> bool:
    """Return whether a version folder has a plan, and that is the wanted one."""
    try:
        return not differences(PlanFacts.read(folder / FACTS), wanted)
    except PlanError:
        return False


def install(staging: Path, folder: Path, engine: bytes | memoryview, facts: PlanFacts) -> None:
    """Bring a plan and its facts into a version folder, so that no plan has another's facts.

    Args:
        staging: a folder on the same file system.
        folder: the model's version folder.
        engine: the plan.
        facts: the contents of `plan.json`; the plan's hash is filled in.
    """
    (staging / PLAN).write_bytes(engine)
    facts = replace(facts, plan_sha256=sha256(staging / PLAN))
    (staging / FACTS).write_text(json.dumps(facts.as_dict(), indent=2) + "\n", encoding="utf-8")
    # An interruption leaves a plan without facts, which is built again.
    (folder / FACTS).unlink(missing_ok=True)
    for name in (PLAN, FACTS):
        (staging / name).replace(folder / name)


def make_plans(root: Path, options: BuilderOptions, force: bool) -> None:
    """Make the plans of a repository that do not fit yet, and print a line per model.

    Raises:
        EngineError, MachineError, EngineConfigError, PlanError, RepositoryError: a plan cannot be
            made.
    """
    trt = load_tensorrt()
    builder = PlanBuilder(Repository(root), trt, first_gpu(), options)
    for model in planned_models(root):
        with status_line(model.name) as show:
            done = builder.make(model, _shown(show, model), force)
        print(done, flush=True)


def try_graphs(root: Path) -> None:
    """Build engines with TensorRT-RTX, keep none, and print a line per model.

    Raises:
        EngineError, EngineConfigError, PlanError: a graph cannot be built.
    """
    trt = load_tensorrt(RTX)
    for model in planned_models(root):
        with status_line(model.name) as show:
            network, profile = parse(trt, root, model)
            network.build(profile, progress=_shown(show, model))
        batches = next(iter(profile.values()))
        print(
            f"{model.name}: TensorRT-RTX {trt.__version__} builds it for batches of "
            f"{batches.min[0]} to {batches.max[0]}, fastest at {batches.opt[0]}; no plan is "
            "written",
            flush=True,
        )


def _shown(show: Callable[[str], None], model: Model) -> Progress:
    return lambda phase, share: show(f"{model.name}: {phase.lower()}, {share:.0%}")
