"""What a TensorRT plan was made of and for (`plan.json` beside it), and whether it fits."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import le
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ram_triton.engines.tensorrt import TENSORRT, BuilderOptions
from ram_triton.errors import PlanError
from ram_triton.files import sha256
from ram_triton.repository.configs import Profile, Shapes
from ram_triton.repository.layout import FACTS, HALF_GRAPH, PLAN, Model

AMPERE = (8, 0)  # the first compute capability of hardware-compatible plans


@dataclass(frozen=True)
class PlanFacts:
    """What a plan was made of and for; `plan.json` beside the plan contains it.

    Attributes:
        plan_sha256: of the plan itself; empty if there is none.
        graph_sha256: of the graph.
        weights_sha256: of the file with the graph's weights; None if they are in the graph. Models
            of one shape have the same graph: they differ in this file alone.
        precision: of the graph: `float32`, `float16`, `bfloat16`; None if the manifest lacks it.
        profiles: the shapes that the plan takes, by the inputs' names.
        tensorrt: the version that builds or loads the plan; None if it is not known.
        flavour: `tensorrt`; Triton loads no other.
        gpu: the name of the GPU; None if it is not known.
        compute_capability: that GPU's, such as `9.0`; None likewise.
        options: how the plan was built.
    """

    plan_sha256: str
    graph_sha256: str
    weights_sha256: str | None
    precision: str | None
    profiles: Profile
    tensorrt: str | None = None
    flavour: str = TENSORRT
    gpu: str | None = None
    compute_capability: str | None = None
    options: BuilderOptions = field(default_factory=BuilderOptions)

    @classmethod
    def read(cls, path: Path) -> "PlanFacts":
        """Read a `plan.json`.

        Raises:
            PlanError: it is missing or damaged.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            profiles = {
                name: Shapes(*(tuple(map(int, shapes[kind])) for kind in ("min", "opt", "max")))
                for name, shapes in stored.pop("profiles").items()
            }
            options = {option.name: stored.pop(option.name) for option in fields(BuilderOptions)}
            facts = cls(**stored, profiles=profiles, options=BuilderOptions(**options))
            for version in (facts.tensorrt, facts.compute_capability):
                Version(str(version))
        except FileNotFoundError as error:
            raise PlanError(f"{path.name} is missing") from error
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            reason = "".join(str(error).splitlines()[:1])
            raise PlanError(f"{path.name} is damaged ({type(error).__name__}: {reason})") from error
        return facts

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of `plan.json`."""
        facts = asdict(self)
        options = facts.pop("options")
        return {**facts, **options}


@dataclass(frozen=True)
class Difference:
    """Something in which a plan differs from the one that would be made now.

    Attributes:
        text: what differs, in words.
        runs: whether the plan can be used nevertheless, if not as well.
    """

    text: str
    runs: bool = False


def differences(found: PlanFacts, wanted: PlanFacts) -> list[Difference]:
    """Return what makes a plan differ from the one that is wanted; nothing if it fits.

    Args:
        found: the facts that lie beside the plan.
        wanted: those of the plan that would be made now, with the hash of the plan that is there.
            A TensorRT or GPU that is None is not compared, nor are options that are the defaults.
    """
    differing = [*_file_differences(found, wanted), *_machine_differences(found, wanted)]
    for name, wanted_shapes in wanted.profiles.items():
        differing += _shape_differences(name, found.profiles.get(name), wanted_shapes)
    for option in fields(BuilderOptions):
        has, asked = getattr(found.options, option.name), getattr(wanted.options, option.name)
        if has != asked != option.default:
            differing.append(Difference(f"was built with {option.name} {has}, not {asked}", True))
    return differing


def _file_differences(found: PlanFacts, wanted: PlanFacts) -> list[Difference]:
    texts = []
    if found.plan_sha256 != wanted.plan_sha256:
        texts.append(f"{PLAN} is not the file that {FACTS} describes (SHA-256 differs)")
    if found.flavour != wanted.flavour:
        texts.append(f"is an engine of {found.flavour}, which Triton does not load")
    if found.graph_sha256 != wanted.graph_sha256:
        texts.append("was built of another graph than this repository's")
    elif found.weights_sha256 != wanted.weights_sha256:
        texts.append("was built of other weights than this repository's")
    if found.precision != wanted.precision:
        texts.append(f"is in {found.precision}, the graph in {wanted.precision}")
    return [Difference(text) for text in texts]


def _machine_differences(found: PlanFacts, wanted: PlanFacts) -> list[Difference]:
    differing = []
    if wanted.tensorrt and not loads(wanted.tensorrt, found):
        text = f"was built by TensorRT {found.tensorrt}, this is {wanted.tensorrt}"
        differing.append(Difference(text))
    if wanted.compute_capability:
        same = found.compute_capability == wanted.compute_capability
        built = f"was built for {found.gpu} ({found.compute_capability})"
        here = f"this GPU is {wanted.gpu} ({wanted.compute_capability})"
        if found.options.hardware_compatible:
            if _release(wanted.compute_capability) < AMPERE:
                text = f"{built}, hardware-compatible from {_write(AMPERE, '.')} on, {here}"
                differing.append(Difference(text))
        elif found.gpu != wanted.gpu or not same:
            differing.append(Difference(f"{built}, {here}", runs=same))
    return differing


def _shape_differences(name: str, found: Shapes | None, wanted: Shapes) -> list[Difference]:
    if found is None:
        return [Difference(f"has no profile for the input {name}")]
    if found == wanted:
        return []
    sizes = [found.min, found.opt, found.max, wanted.min, wanted.opt, wanted.max]
    same_rank = len(set(map(len, sizes))) == 1
    # Dimensions at the end that are fixed and agree are not worth a word.
    shown = [index for index, dims in enumerate(zip(*sizes, strict=False)) if len(set(dims)) > 1]
    stop = shown[-1] + 1 if same_rank else None
    built, asked = (
        f"{_write(shapes.min[:stop])} to {_write(shapes.max[:stop])}, fastest at "
        f"{_write(shapes.opt[:stop])}"
        for shapes in (found, wanted)
    )
    runs = same_rank and all((*map(le, found.min, wanted.min), *map(le, wanted.max, found.max)))
    return [Difference(f"takes {name} of {built}; the config asks for {asked}", runs)]


def loads(tensorrt: str, facts: PlanFacts) -> bool:
    """Return whether a version of TensorRT loads a plan.

    The builder's own does; of a version-compatible plan, later ones of the same major version do
    too. A library reports fewer numbers of its version than Python does: those are compared.
    """
    here, built = _release(tensorrt), _release(facts.tensorrt or "")
    known = min(len(here), len(built))
    here, built = here[:known], built[:known]
    if not known or here == built:
        return bool(known)
    return facts.options.version_compatible and here[0] == built[0] and here > built


def _release(version: str) -> tuple[int, ...]:
    try:
        return Version(version).release
    except InvalidVersion:
        return ()


def _write(sizes: tuple[int, ...], separator: str = "x") -> str:
    return separator.join(map(str, sizes))


def wanted_facts(
    root: Path,
    model: Model,
    profile: Profile,
    manifest: Mapping[str, Any],
    sha256: Callable[[Path], str] = sha256,
) -> PlanFacts:
    """Return the facts of the plan that would be made now, but for what makes and runs it.

    Args:
        root: the model repository.
        model: one that TensorRT runs, whose graph is there.
        profile: the shapes that its config asks for.
        manifest: the repository's.
        sha256: returns a file's hash.
    """
    plan, graph = root / model.file(PLAN), root / model.plan_graph
    weights = graph.with_name(f"{graph.name}.data")
    half = manifest.get("half")
    precision = half.get("precision") if isinstance(half, dict) else None
    return PlanFacts(
        plan_sha256=sha256(plan) if plan.is_file() else "",
        graph_sha256=sha256(graph),
        weights_sha256=sha256(weights) if weights.is_file() else None,
        precision=precision if model.plan_graph.name == HALF_GRAPH else "float32",
        profiles=profile,
    )
