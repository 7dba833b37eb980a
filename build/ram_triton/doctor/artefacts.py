"""The build's files: unchanged, fit for each other, and plans that fit them and this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ram_triton.doctor.report import Finding, error, fine, unknown, warning
from ram_triton.doctor.repository_view import RepositoryView, mebibytes, read_json
from ram_triton.errors import EngineConfigError, GraphError, RamTritonError
from ram_triton.gpus import Gpu
from ram_triton.plan_facts import PlanFacts, differences, wanted_facts
from ram_triton.repository.configs import read_bindings
from ram_triton.repository.layout import (
    ENCODER,
    FACTS,
    HALF_GRAPH,
    HEAD,
    MANIFEST,
    PIXELS,
    PLAN,
    PREPROCESSING,
    VOCABULARY,
)

SUBJECT = "artefacts"
REBUILD = "run 'make model' again, or copy the file again from where it was built"
MIXED = "run 'make model' again: the files come from different builds"
RESTORE = "fix it, or restore the project's config"
BUILD_PLANS = "restart the container, which makes plans, or run 'make plans' inside"
REBUILD_PLAN = "run 'make model' (for the text encoder 'make text-encoder'), then 'make plans'"
FIELDS = {"tag", "tag_zh", "threshold"}  # of an entry of the vocabulary


def check_artefacts(view: RepositoryView) -> Iterator[Finding]:
    """Compare every file that the manifest names with its hash."""
    found, size = [], 0
    for name, expected in view.artefacts.items():
        path = view.root / name
        if not path.is_file():
            found.append(error(SUBJECT, f"{name} is missing", REBUILD))
            continue
        size += path.stat().st_size
        if view.sha256(path) != expected:
            found.append(error(SUBJECT, f"{name} is not what was built (SHA-256 differs)", REBUILD))
    if not view.artefacts:
        found.append(error(SUBJECT, f"{MANIFEST} names no artefacts", "run 'make model' again"))
    count = len(view.artefacts)
    yield from found or [fine(SUBJECT, f"{count} files, {mebibytes(size)}, match the manifest")]
    for model in view.models:
        if not (view.root / model.name / "1").is_dir():
            remedy = f"create it, empty if it is an ensemble's: mkdir {model.name}/1"
            yield error(SUBJECT, f"{model.name}/1 is missing", remedy)


def check_vocabulary(view: RepositoryView) -> Iterator[Finding]:
    """Compare the number of tags with the length of the head's logits."""
    entries = read_json(view.root / VOCABULARY)
    if isinstance(entries, list) and all(
        isinstance(entry, dict) and set(entry) >= FIELDS for entry in entries
    ):
        yield from _compare(view, "vocabulary", HEAD, "logits", len(entries), "tags")
    else:
        text = f"{VOCABULARY} is missing, damaged or cut short"
        yield error("vocabulary", text, "run 'make model' again")


def check_image_size(view: RepositoryView) -> Iterator[Finding]:
    """Compare the image size that Python models read with that of the encoder's pixels."""
    written = {path: read_json(view.root / path) for path in (PREPROCESSING, PIXELS)}
    sizes = {
        path: found.get("image_size") if isinstance(found, dict) else None
        for path, found in written.items()
    }
    size = sizes[PREPROCESSING]
    if not isinstance(size, int):
        text = f"{PREPROCESSING} is missing, damaged or without an image_size"
        yield error("image size", text, "run 'make model' again")
    else:
        yield from _compare(view, "image size", ENCODER, "pixels", size, "px")
    if (view.root / PIXELS).exists() and sizes[PIXELS] != size:
        text = f"{PREPROCESSING} has {size} px, {PIXELS} has {sizes[PIXELS]}"
        yield error("image size of pixels", text, MIXED)


def _compare(
    view: RepositoryView, subject: str, graph: Path, tensor: str, size: int, unit: str
) -> Iterator[Finding]:
    """Compare `size` with a tensor's second dimension, in every graph of a model that is there."""
    paths = [graph, graph.with_name(HALF_GRAPH)]
    paths = [path for path in paths if (view.root / path).is_file()]
    try:
        sizes = {path: _second_dimension(view.root, path, tensor) for path in paths}
    except GraphError as problem:
        yield error(subject, str(problem).removeprefix(f"{view.root}/"), "run 'make model' again")
        return
    for path, found in sizes.items():
        if found != size:
            yield error(subject, f"{size} {unit}, but {path} has {found}", MIXED)
    if not sizes:
        yield unknown(subject, f"{graph} is not there to compare with", "run 'make model'")
    elif set(sizes.values()) == {size}:
        yield fine(subject, f"{size} {unit}, as in the graph")


def _second_dimension(root: Path, graph: Path, tensor: str) -> int:
    shapes = {binding.name: binding.shape for binding in read_bindings(root / graph)}
    if tensor not in shapes:
        raise GraphError(f"{graph}: has no tensor '{tensor}'")
    if len(shapes[tensor]) < 2:
        raise GraphError(f"{graph}: '{tensor}' has {len(shapes[tensor])} dimensions")
    return shapes[tensor][1]


def check_plans(
    view: RepositoryView, gpus: Sequence[Gpu], tensorrt: str | None
) -> Iterator[Finding]:
    """Compare each plan with the one that `make plans` would make now.

    Args:
        view: the repository.
        gpus: this machine's.
        tensorrt: the version of the TensorRT that will load the plans; None if none is found.
    """
    for model in view.planned:
        subject, folder = f"plan of {model.name}", view.root / model.name / "1"
        if not (folder / PLAN).is_file():
            yield error(subject, f"{PLAN} is missing", BUILD_PLANS)
        elif not (folder / FACTS).is_file():
            yield warning(subject, f"{FACTS} is missing: the plan's origin is unknown", BUILD_PLANS)
        elif not (view.root / model.plan_graph).is_file():
            text = f"{model.plan_graph.name} is missing: the plan cannot be compared with it"
            yield unknown(subject, text, REBUILD_PLAN)
        elif model.name in view.configs:  # else an error of its own
            try:
                facts = PlanFacts.read(folder / FACTS)
                bindings = read_bindings(view.root / model.plan_graph)
                profile = view.configs[model.name].profile(bindings)
            except RamTritonError as problem:
                remedy = RESTORE if isinstance(problem, EngineConfigError) else BUILD_PLANS
                yield error(subject, str(problem).removeprefix(f"{view.root}/"), remedy)
                continue
            wanted = wanted_facts(view.root, model, profile, view.manifest, view.sha256)
            here = [gpu for gpu in gpus if view.instances(model.name, gpu.index)]
            yield from _compare_plan(subject, facts, replace(wanted, tensorrt=tensorrt), here)


def _compare_plan(
    subject: str, facts: PlanFacts, wanted: PlanFacts, gpus: Sequence[Gpu]
) -> Iterator[Finding]:
    here = [
        replace(wanted, gpu=gpu.name, compute_capability=gpu.compute_capability) for gpu in gpus
    ]
    differing = [each for facts_here in here or [wanted] for each in differences(facts, facts_here)]
    for difference in dict.fromkeys(differing):
        judge = warning if difference.runs else error
        yield judge(subject, difference.text, BUILD_PLANS)
    if wanted.tensorrt is None:
        text = f"built by TensorRT {facts.tensorrt}; no TensorRT was found to compare with"
        yield unknown(subject, text, "run the doctor in the serving image")
    elif facts.options.version_compatible and not differing:
        text = f"version-compatible, built by TensorRT {facts.tensorrt}; this is {wanted.tensorrt}"
        remedy = "start tritonserver with --backend-config=tensorrt,version-compatible=true"
        yield warning(subject, text, f"{remedy}, or run 'ram-triton plans --force' here")
    elif not differing:
        yield fine(subject, f"{facts.precision}, TensorRT {facts.tensorrt}, {facts.gpu}")
