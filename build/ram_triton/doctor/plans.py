"""Plans: built of these graphs, for this GPU, this TensorRT and the profiles that configs ask."""

from collections.abc import Iterator, Sequence
from operator import gt, lt
from pathlib import Path

from ram_triton.doctor.artefacts import Advance, sha256
from ram_triton.doctor.finding import Finding, error, fine, unknown, warning
from ram_triton.doctor.machine import Gpu
from ram_triton.doctor.repository_view import Inspected, read_json
from ram_triton.engines.tensorrt_version import loads_compatible, same
from ram_triton.errors import EngineConfigError
from ram_triton.repository.layout import MODELS

BUILD = "restart the container, which builds it, or 'make plans' (build/make_plans.py) inside"
AMPERE = 8.0  # first compute capability that hardware-compatible plans run on


def check_plans(
    repository: Inspected, gpus: Sequence[Gpu], tensorrt: str | None, advance: Advance
) -> Iterator[Finding]:
    """Compare each engine's plan.json with its plan, its graph, its config and this machine.

    Args:
        repository: what to look at.
        gpus: this machine's.
        tensorrt: version of the TensorRT that will load the plans; None if none is at hand.
        advance: called with each number of bytes that was read.
    """
    for model in repository.planned:
        subject = f"plan of {model}"
        folder = repository.root / model / "1"
        if not (folder / "model.plan").is_file():
            yield error(subject, "model.plan is missing", BUILD)
            continue
        facts = read_json(folder / "plan.json")
        if not isinstance(facts, dict):
            yield warning(
                subject, "plan.json is missing or damaged: nobody knows its origin", BUILD
            )
            continue
        try:
            found = [
                *_files(repository, model, facts, advance),
                *_tensorrt(facts, tensorrt),
                *_gpus(repository, model, facts, gpus),
                *_profiles(repository, model, facts),
            ]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
            found = [(error, f"plan.json is damaged ({type(problem).__name__}: {problem})", BUILD)]
        for status, text, remedy in found:
            yield status(subject, text, remedy)
        if not found:
            text = f"{facts.get('precision')}, TensorRT {facts.get('tensorrt')}, {facts.get('gpu')}"
            yield fine(subject, text)


def _files(repository: Inspected, model: str, facts: dict, advance: Advance) -> Iterator[tuple]:
    if sha256(repository.root / model / "1" / "model.plan", advance) != facts.get("plan_sha256"):
        yield error, "model.plan is not the file that plan.json tells of (SHA-256 differs)", BUILD
    graph = MODELS[model].plan_graph
    if not MODELS[model].optional:
        hashes = repository.artefacts
    else:  # the manifest is of the build before it
        hashes = {
            str(path.relative_to(repository.root)): sha256(path, advance)
            for path in added_graphs(repository, model)
        }
    weights = f"{graph}.data"
    if str(graph) not in hashes:
        yield (
            unknown,
            f"there is no {graph.name} to compare with",
            "run 'make model' (of the text encoder 'make text-encoder'), then 'make plans'",
        )
    elif hashes[str(graph)] != facts.get("graph_sha256"):
        text = f"the plan was built of another graph than this repository's {graph.name}"
        yield error, text, BUILD
    elif hashes.get(weights) != facts.get("weights_sha256"):
        text = f"the plan was built of other weights than this repository's {graph.name}.data"
        yield error, text, BUILD


def added_graphs(repository: Inspected, model: str) -> list[Path]:
    """Return the files of the graph of a model that was added, as far as they are there."""
    graph = repository.root / MODELS[model].plan_graph
    return [path for path in (graph, graph.with_name(f"{graph.name}.data")) if path.is_file()]


def _tensorrt(facts: dict, at_hand: str | None) -> Iterator[tuple]:
    built = str(facts.get("tensorrt"))
    if facts.get("flavour") == "tensorrt_rtx":
        yield error, "a TensorRT-RTX engine, which Triton's TensorRT backend does not load", BUILD
    elif at_hand is None:
        yield (
            unknown,
            f"built by TensorRT {built}; no TensorRT is at hand to compare with",
            "run the doctor in the serving image: README, 'On GPUs'",
        )
    elif not same(built, at_hand):
        if not (facts.get("version_compatible") and loads_compatible(at_hand, built)):
            yield error, f"built by TensorRT {built}, this is {at_hand}", BUILD
        else:
            yield (
                warning,
                f"version-compatible: built by TensorRT {built}, this is {at_hand}",
                "start tritonserver with --backend-config=tensorrt,version-compatible=true, "
                "or run 'make plans' here",
            )


def _gpus(repository: Inspected, model: str, facts: dict, gpus: Sequence[Gpu]) -> Iterator[tuple]:
    if model in repository.configs:
        gpus = [gpu for gpu in gpus if repository.instances_on(model, gpu.index)]
    built = f"{facts.get('gpu')} (compute capability {facts.get('compute_capability')})"
    for gpu in gpus:
        here = f"GPU {gpu.index} is {gpu.name} ({gpu.compute_capability})"
        if gpu.compute_capability == facts.get("compute_capability"):
            if gpu.name != facts.get("gpu"):
                yield warning, f"built on {built}, {here}: it runs, maybe slower", BUILD
        elif not (facts.get("hardware_compatible") and float(gpu.compute_capability) >= AMPERE):
            yield error, f"built for {built}, {here}", BUILD


def _profiles(repository: Inspected, model: str, facts: dict) -> Iterator[tuple]:
    if model not in repository.configs:
        return
    try:
        sizes = repository.free_sizes(model)
    except EngineConfigError as problem:
        yield error, str(problem), "mend it, or copy the project's config there"
        return
    for name, wanted in sizes.items():
        shapes = facts.get("profiles", {}).get(name)
        if not shapes:
            yield error, f"no profile for the input {name}", BUILD
            continue
        built = [tuple(shapes[kind][: len(wanted[0])]) for kind in ("min", "opt", "max")]
        yield from _ranges(repository, model, name, built, wanted)
    variant = repository.variant
    if variant is not None and MODELS[model].image_input in facts["profiles"]:
        size = variant.image_size
        expected = (
            [size, size, 3] if model == "ram_encoder" else [variant.num_tokens, variant.image_width]
        )
        each = facts["profiles"][MODELS[model].image_input]["max"][1:]
        if each != expected:
            yield error, f"takes {each} for each image, the graph {expected}", BUILD


def _ranges(
    repository: Inspected, model: str, name: str, built: list[tuple], wanted: list[tuple]
) -> Iterator[tuple]:
    """Compare the smallest, usual and largest sizes of an input with those of the config."""
    (least, usual, most), (smallest, _, largest) = built, wanted
    config = repository.configs[model]
    what = "batches" if config.max_batch_size else name
    if any(map(gt, least, smallest)) or any(map(lt, most, largest)):
        limit = (
            f"max_batch_size to {most[0]}"
            if config.max_batch_size
            else f"the parameter '{name}' to '{', '.join(map(_write, built))}'"
        )
        yield (
            error,
            f"takes {what} of {_write(least)} to {_write(most)}, the config allows "
            f"{_write(smallest)} to {_write(largest)}",
            f"{BUILD}, or set {limit}",
        )
    preferred = [(size,) for size in config.dynamic_batching.preferred_batch_size]
    preferred = preferred or ([] if config.max_batch_size else [wanted[1]])
    if preferred and usual not in preferred:
        text = f"made fastest for {what} of {_write(usual)}, the config prefers "
        yield warning, text + " or ".join(map(_write, preferred)), BUILD


def _write(sizes: tuple[int, ...]) -> str:
    """Write sizes as the configs do."""
    return "x".join(map(str, sizes))
