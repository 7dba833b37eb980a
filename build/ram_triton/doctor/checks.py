"""All checks, in the order in which they depend on each other."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ram_triton.doctor.artefacts import (
    RESTORE,
    check_artefacts,
    check_image_size,
    check_plans,
    check_vocabulary,
)
from ram_triton.doctor.machine import (
    backend_python,
    check_ports,
    check_python,
    check_server,
    tensorrt_version,
)
from ram_triton.doctor.memory import (
    available_memory,
    check_decoding_memory,
    check_gpu_memory,
    check_shared_memory,
    shared_memory,
)
from ram_triton.doctor.report import Finding, error, fine, not_needed, unknown, warning
from ram_triton.doctor.repository_view import Advance, RepositoryView
from ram_triton.errors import MachineError
from ram_triton.gpus import Gpu, gpus
from ram_triton.repository.layout import (
    CPU,
    GPU,
    INT8_GRAPH,
    MANIFEST,
    MODELS,
    OPENVINO_BACKEND,
    PLAN,
    Engine,
)
from ram_triton.server import Ports
from ram_triton.server_code import MOST_MAPS

INSTALL = "run 'make model', or 'make demo' for a toy"


def choose_profile() -> str:
    """Return `gpu` if the driver shows a GPU or fails to, else `cpu`."""
    try:
        return GPU if gpus() else CPU
    except MachineError:
        return GPU


def bytes_to_read(root: Path) -> int:
    """Return about how many bytes `examine` will report through `advance`."""
    with contextlib.suppress(OSError):  # a finding of its own
        view = RepositoryView.read(root, GPU)
        files = [*map(Path, view.artefacts), *(model.file(PLAN) for model in view.planned)]
        sizes = [(root / path).stat().st_size for path in files if (root / path).is_file()]
        return sum(sizes)
    return 0


def examine(
    root: Path, profile: str, ports: Ports, advance: Advance = lambda count: None
) -> Iterator[Finding]:
    """Look at a repository and this machine; yields each finding when it is made.

    Args:
        root: the model repository.
        profile: `cpu` or `gpu`.
        ports: where the server is to listen.
        advance: called with each number of bytes that was read.
    """
    if not root.is_dir():
        yield error("repository", f"{root}: no such folder", "give the right REPOSITORY=DIR")
        return
    view = RepositoryView.read(root, profile, advance)
    if view.configs or (root / MANIFEST).exists():
        yield from _guard("configs", lambda: check_configs(view))
        yield from _guard("stray files", lambda: check_stray_files(view))
        yield from _guard("model", lambda: _check_model(view))
    else:
        yield error("repository", f"{root} contains no model", INSTALL)
    yield from _guard("GPUs", lambda: _check_gpus(view))
    yield from _guard("Python", lambda: check_python(profile, backend_python(profile)))
    yield from _guard("tritonserver", lambda: check_server(profile))
    yield from _guard("shared memory", lambda: _check_shared_memory(view))
    yield from _guard("ports", lambda: check_ports(ports))


def _guard(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield a check's findings, and one more instead of an error that it did not expect."""
    try:
        yield from check()
    except Exception as problem:  # from files that nobody has written like this yet
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        yield error(
            subject,
            f"cannot be checked to the end ({reason})",
            "fix the errors above first, or run 'make model' again",
        )


def _check_model(view: RepositoryView) -> Iterator[Finding]:
    if view.manifest_problem:
        damage, _, remedy = view.manifest_problem.partition(": run ")
        yield error("artefacts", damage.removeprefix(f"{view.root}/"), f"run {remedy}")
    elif not view.manifest:
        text = f"no model is installed, or its build was interrupted: {MANIFEST} is missing"
        yield error("artefacts", text, INSTALL)
    else:
        yield from _guard("artefacts", lambda: check_artefacts(view))
        yield from _guard("vocabulary", lambda: check_vocabulary(view))
        yield from _guard("image size", lambda: check_image_size(view))


def _check_shared_memory(view: RepositoryView) -> Iterator[Finding]:
    if view.manifest:  # else an error of its own
        yield from check_shared_memory(view, shared_memory())
        yield from _guard(
            "decoding memory", lambda: check_decoding_memory(view, available_memory())
        )


def check_configs(view: RepositoryView) -> Iterator[Finding]:
    """Check names, batches, graphs and numbers of the configs that the profile uses."""
    found = [error("configs", problem, RESTORE) for problem in view.config_problems]
    for name, config in view.configs.items():
        if config.model.name not in ("", name):
            text = f"{view.config_name(name)}: its name is '{config.model.name}'"
            found.append(error("configs", text, f'write name: "{name}"'))
    found += [*_batches(view), *_batchers(view), *_graphs(view), *_numbers(view)]
    found += [*_label_limits(view), *_map_limits(view), *_warm_ups(view)]
    yield from found or [fine("configs", f"{len(view.models)} models, profile {view.profile}")]


def _batches(view: RepositoryView) -> Iterator[Finding]:
    """Compare the batches that the ensemble allows with those that its steps take."""
    ensemble = view.configs.get("ram")
    for name in MODELS["ram"].steps:
        if ensemble is None or name not in view.configs:
            continue
        size, whole = view.configs[name].model.max_batch_size, ensemble.model.max_batch_size
        if size < whole:
            yield error(
                "configs",
                f"{name}: max_batch_size {size} is below the ensemble's {whole}",
                f"raise it, or lower max_batch_size in ram/config.pbtxt to {size}",
            )


def _batchers(view: RepositoryView) -> Iterator[Finding]:
    """Find a backend that fixes the batch, and settings under which the batcher stalls."""
    for name, config in view.configs.items():
        path = view.config_name(name)
        if config.model.backend == "openvino":
            text = f"{path}: the backend 'openvino' is NVIDIA's, which takes full batches only"
            yield error("configs", text, f'write backend: "{OPENVINO_BACKEND}"')
        graphs = config.model.optimization.cuda.graph_spec
        largest = max((graph.batch_size for graph in graphs), default=0)
        if largest > config.model.max_batch_size:
            yield error(
                "configs",
                f"{path}: a graph_spec of {largest} images is over max_batch_size",
                "remove it, or raise max_batch_size",
            )
        if config.starves:
            yield warning(
                "configs",
                f"{path}: a limit of the queue with a queue delay slows the batcher to a stall "
                "before Triton 26.08",
                "set max_queue_delay_microseconds to 0: requests that wait are joined all the same",
            )


def _warm_ups(view: RepositoryView) -> Iterator[Finding]:
    """Find files of warm-up requests that are missing: the model does not load without them."""
    for name, config in view.configs.items():
        for sample in config.model.model_warmup:
            for tensor in sample.inputs.values():
                file = f"{name}/warmup/{tensor.input_data_file}"
                if tensor.input_data_file and not (view.root / file).is_file():
                    text = f"{view.config_name(name)} names {file}, which is missing"
                    yield error("configs", text, RESTORE)


def _graphs(view: RepositoryView) -> Iterator[Finding]:
    """Find graphs that configs name, but the build did not write."""
    for name, config in view.configs.items():
        graph = config.model.default_model_filename
        path = f"{name}/1/{graph}"
        # If the build wrote it and it is missing, that is an artefact's finding.
        if not view.artefacts or not graph or path in view.artefacts:
            continue
        if not (view.root / path).is_file():
            config_name = view.config_name(name)
            remedy = "run 'make model'"
            if graph == INT8_GRAPH:
                remedy = f"run 'make model' with INT8=DIR, or name model.onnx in {config_name}"
            yield error("configs", f"{config_name} names {path}, which is missing", remedy)


def _numbers(view: RepositoryView) -> Iterator[Finding]:
    """Check the numbers that the Python models read from their configs."""
    for name, config in view.configs.items():
        for parameter, kind in MODELS[name].numbers.items():
            text = config.parameter(parameter)
            if text is None or not _is_number(text, kind):
                state = "missing" if text is None else f"'{text}'"
                what = "a whole number" if kind is int else "a number"
                place = f"{view.config_name(name)}: the parameter '{parameter}'"
                yield error("configs", f"{place} is {state}, not {what}", RESTORE)


def _is_number(text: str, kind: type[int] | type[float]) -> bool:
    """Return whether the model can use a parameter: a number that is finite and not negative."""
    try:
        return 0 <= kind(text) < math.inf
    except ValueError:
        return False


def _label_limits(view: RepositoryView) -> Iterator[Finding]:
    """Compare the labels that a request may have with those that the head's plan takes."""
    labels, head = view.configs.get("ram_open_labels"), view.configs.get("ram_open_head")
    limit = labels.last_number("max_labels") if labels else None
    largest = head.last_number("label_embeds") if head else None
    if limit is not None and largest is not None and limit > largest:
        yield error(
            "configs",
            f"ram_open_labels allows {limit} labels, ram_open_head's plans take {largest}",
            f"lower max_labels in {view.config_name('ram_open_labels')}, or raise the last size of "
            "label_embeds in ram_open_head/config.pbtxt and make the plans again",
        )


def _map_limits(view: RepositoryView) -> Iterator[Finding]:
    """Find ensembles without heat maps, and plans that take fewer tags than they are asked for."""
    for name, config in view.configs.items():
        outputs = [output.name for output in config.model.output]
        if MODELS[name].engine is Engine.ENSEMBLE and "maps" not in outputs:
            text = f"{view.config_name(name)} is from before heat maps: it has no output 'maps'"
            yield warning("configs", text, RESTORE)
        largest = config.last_number("tag_ids") if MODELS[name].makes_maps else None
        if largest is not None and largest < MOST_MAPS:
            yield error(
                "configs",
                f"{view.config_name(name)}: plans take {largest} tags per image, the "
                f"postprocessor asks for up to {MOST_MAPS}",
                f"raise the last size of tag_ids to {MOST_MAPS}",
            )


def check_stray_files(view: RepositoryView) -> Iterator[Finding]:
    """Find what is in the root and is not a model: Triton exits because of it."""
    known = {model.name for model in view.models}
    strays = [
        path.name
        for path in sorted(view.root.iterdir())
        if not (path / "config.pbtxt").is_file() and path.name not in known
    ]
    for name in strays:
        text = f"{name} is not a model: the server exits because of it"
        yield error("stray files", text, f"move {name} out of {view.root}")
    if not strays:
        yield fine("stray files", "none")


def _check_gpus(view: RepositoryView) -> Iterator[Finding]:
    if view.profile == CPU:
        for subject in ("GPUs", "plans", "GPU memory"):
            yield not_needed(subject, "the CPU profile runs the ONNX graphs")
        return
    found: list[Gpu] = []
    try:
        found = gpus()
    except MachineError as problem:
        yield error("GPUs", str(problem), "repair the NVIDIA driver, or use --profile cpu")
    else:
        if found:
            yield fine("GPUs", ", ".join(f"{gpu.index}: {gpu.name}" for gpu in found))
            yield from check_gpu_ids(view, found)
        else:
            yield error(
                "GPUs",
                "no NVIDIA driver or GPU found",
                "install the NVIDIA driver, start the container with --gpus all, or use "
                "--profile cpu",
            )
    if not view.manifest:
        return
    yield from _guard("plans", lambda: check_plans(view, found, tensorrt_version()))
    if found:
        yield from _guard("GPU memory", lambda: check_gpu_memory(view, found))
    else:
        yield unknown("GPU memory", "not known without a GPU", "see GPUs")


def check_gpu_ids(view: RepositoryView, found: Sequence[Gpu]) -> Iterator[Finding]:
    """Find configs that name a GPU that is not there: the server exits because of it."""
    there = {gpu.index for gpu in found}
    for model in view.planned:
        if model.name not in view.configs:
            continue
        groups = view.configs[model.name].model.instance_group
        for index in sorted({index for group in groups for index in group.gpus} - there):
            yield error(
                "GPUs",
                f"{model.name}/config.pbtxt: instance_group names GPU {index}, which is not there",
                f"leave gpus out of instance_group, or name {' or '.join(map(str, sorted(there)))}",
            )
