"""Shared memory: what Triton's Python backend may put there, against what there is."""

from collections.abc import Iterator

from ram_triton.doctor.finding import Finding, error, fine, unknown, warning
from ram_triton.doctor.repository_view import Inspected, mebibytes
from ram_triton.repository.layout import CPU, VOCABULARY

SUBJECT = "shared memory"
# Each instance starts with a region of this size, and grows it by what a batch needs.
REGION = 2**20
PYTHON_BACKENDS = ("python", "openvino")  # without NVIDIA's OpenVINO, ours is in Python too


def check_shared_memory(repository: Inspected, memory: tuple[int, int] | None) -> Iterator[Finding]:
    """Compare with Σ instances · (region + images · (inputs + outputs of one image)).

    Args:
        repository: what to look at.
        memory: total and free bytes of shared memory; None if there is none.
    """
    models = [
        name
        for name, c in repository.configs.items()
        if c.backend in PYTHON_BACKENDS and (c.backend == "python" or repository.profile == CPU)
    ]
    if memory is None:
        yield error(SUBJECT, "/dev/shm is missing", "mount a tmpfs there, or run in a container")
        return
    total, free = memory
    if not models or repository.tensor_bytes() is None:
        text = f"{mebibytes(free)} free; the need is not known without configs and manifest"
        yield unknown(SUBJECT, text, "mend what stands above first")
        return
    counts = {name: repository.instances(name) for name in models}
    start = sum(counts.values()) * REGION
    need = sum(count * instance_bytes(repository, name) for name, count in counts.items())
    text = (
        f"{mebibytes(free)} of {mebibytes(total)} free; {sum(counts.values())} instances take "
        f"{mebibytes(start)} to start and {mebibytes(need)} if all hold full batches of the "
        "largest images"
    )
    remedy = (
        f"give the container --shm-size={-(-need // 2**30)}g (outside of one, remount /dev/shm "
        "with that size), or lower max_bytes or instances of ram_preprocess and ram_open_labels"
    )
    if free < start:
        yield error(SUBJECT, text, remedy)
    elif free < need:
        yield warning(SUBJECT, text, remedy)
    else:
        yield fine(SUBJECT, text)


def instance_bytes(repository: Inspected, model: str) -> int:
    """Estimate what one instance of a Python model takes for a full batch of largest images."""
    config = repository.configs[model]
    sizes = repository.tensor_bytes()
    image = sum(sizes.get(tensor.name, 0) for tensor in (*config.input, *config.output))
    if model == "ram_postprocess":
        # The logits again, a score and an id for each tag, and all of their names.
        vocabulary = repository.root / VOCABULARY
        image += 3 * sizes["logits"] + (vocabulary.stat().st_size if vocabulary.is_file() else 0)
    return REGION + repository.largest_batch(model) * image
