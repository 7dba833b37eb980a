"""All checks, in the order in which they depend on each other."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ram_triton.doctor.artefacts import artefact_sizes, check_artefacts
from ram_triton.doctor.configs import check_configs, check_gpu_ids, check_stray_files
from ram_triton.doctor.finding import Finding, error, fine, not_needed, unknown
from ram_triton.doctor.gpu_memory import check_gpu_memory
from ram_triton.doctor.graphs import check_image_size, check_vocabulary
from ram_triton.doctor.machine import Gpu, read_gpus, shared_memory, tensorrt_version
from ram_triton.doctor.plans import added_graphs, check_plans
from ram_triton.doctor.ports import check_ports
from ram_triton.doctor.python_packages import backend_python, check_python, check_server
from ram_triton.doctor.repository_view import Inspected
from ram_triton.doctor.shared_memory import check_shared_memory
from ram_triton.errors import MachineError
from ram_triton.repository.layout import CPU, GPU, MODELS
from ram_triton.server import Ports


def choose_profile() -> str:
    """Return `gpu` where the driver shows a GPU or fails to, and `cpu` elsewhere."""
    try:
        return GPU if read_gpus() else CPU
    except MachineError:
        return GPU


def bytes_to_read(root: Path) -> int:
    """Tell how many bytes `examine` will report through `advance`."""
    repository = Inspected(root, GPU)
    files = [root / model / "1" / "model.plan" for model in repository.planned]
    for model in repository.planned:
        if MODELS[model].optional:
            files += added_graphs(repository, model)
    sizes = [path.stat().st_size for path in files if path.is_file()]
    return sum(artefact_sizes(repository)) + sum(sizes)


def examine(
    root: Path, profile: str, ports: Ports, advance: Callable[[int], None] = lambda count: None
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
    repository = Inspected(root, profile)
    for subject, findings in (
        ("configs", check_configs(repository)),
        ("stray files", check_stray_files(repository)),
        ("artefacts", check_artefacts(repository, advance)),
        ("vocabulary", check_vocabulary(repository)),
        ("image size", check_image_size(repository)),
        ("GPUs", _check_gpus(repository, advance)),
        ("Python", check_python(profile, backend_python(profile))),
        ("tritonserver", check_server(profile)),
        ("shared memory", check_shared_memory(repository, shared_memory())),
        ("ports", check_ports(ports)),
    ):
        yield from _guard(subject, findings)


def _guard(subject: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield a check's findings, and one more in place of whatever it did not expect."""
    try:
        yield from findings
    except Exception as problem:  # of files that nobody wrote so yet
        reason = " ".join(f"{type(problem).__name__}: {problem}".split())
        yield error(
            subject,
            f"cannot be looked at to the end ({reason})",
            "mend what stands above first, or run 'make model' again",
        )


def _check_gpus(repository: Inspected, advance: Callable[[int], None]) -> Iterator[Finding]:
    if repository.profile == CPU:
        for subject in ("GPUs", "plans", "GPU memory"):
            yield not_needed(subject, "the CPU profile runs the ONNX graphs")
        return
    gpus: list[Gpu] = []
    try:
        gpus = read_gpus()
    except MachineError as problem:
        yield error("GPUs", str(problem), "mend or reload the NVIDIA driver, or take --profile cpu")
    else:
        if gpus:
            yield fine("GPUs", ", ".join(f"{gpu.index}: {gpu.name}" for gpu in gpus))
            yield from check_gpu_ids(repository, gpus)
        else:
            yield error(
                "GPUs",
                "the driver shows none",
                "install the NVIDIA driver, start the container with --gpus all, or take "
                "--profile cpu",
            )
    yield from _guard("plans", check_plans(repository, gpus, tensorrt_version(), advance))
    if gpus:
        yield from _guard("GPU memory", check_gpu_memory(repository, gpus))
    else:
        yield unknown("GPU memory", "no GPU to ask", "see GPUs")
