"""Memory: what plans, instances and Triton's Python models may take, and what is free."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ram_triton.doctor.report import Finding, error, fine, unknown, warning
from ram_triton.doctor.repository_view import RepositoryView, mebibytes
from ram_triton.gpus import Gpu
from ram_triton.model.variant import Variant
from ram_triton.processes import read_numbers
from ram_triton.repository.layout import (
    CPU,
    FLOAT32_GRAPH,
    HALF_GRAPH,
    OPENVINO_BACKEND,
    PLAN,
    VOCABULARY,
    Model,
)
from ram_triton.server_code import ImageLimits, preprocessing

# CUDA's own share, once per process: its context, and kernels of TensorRT's libraries.
CONTEXT = 512 * 2**20
TEXT_HEAD = 64  # width of an attention head in a CLIP's text encoder
SHARED_MEMORY = Path("/dev/shm")
MEMORY_INFO = Path("/proc/meminfo")
ORDINARY_JPEG = 400 * 10**6  # bytes in the instance's own process, see docs/images.md
# An instance of a Python model starts with a region of this size, and grows it by what a batch
# needs.
REGION = 2**20


def check_gpu_memory(view: RepositoryView, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """List per GPU what adds up: CUDA + Σ plan + instances · (activations + inputs, outputs).

    The activations are an estimate that was never compared with a GPU.
    """
    subject = "GPU memory"
    variant = view.variant
    missing = [model.name for model in view.planned if model.name not in view.configs]
    if missing or variant is None:
        what = f"config of {missing[0]}" if missing else "manifest's variant"
        yield unknown(subject, f"not estimated without the {what}", "fix the errors above first")
        return
    for gpu in gpus:
        if gpu.free is None:
            yield unknown(
                f"{subject} {gpu.index}",
                f"the driver does not report what is free on {gpu.name}",
                "watch 'nvidia-smi' while the server starts and answers a full batch",
            )
        else:
            yield _compare(view, variant, gpu, gpu.free)


def _compare(view: RepositoryView, variant: Variant, gpu: Gpu, free: int) -> Finding:
    subject, plans, whole = f"GPU memory {gpu.index}", CONTEXT, CONTEXT
    addends = [f"CUDA {mebibytes(CONTEXT)}"]
    for model in view.planned:
        if count := view.instances(model.name, gpu.index):
            plan, work = _plan_bytes(view.root, model), _work_bytes(view, variant, model)
            plans, whole = plans + plan, whole + plan + count * work
            addends.append(f"{model.name} {mebibytes(plan)} plan + {count} × {mebibytes(work)}")
    text = f"about {mebibytes(whole)} of {mebibytes(free)} free: {', '.join(addends)}"
    remedy = (
        f"end what else runs on GPU {gpu.index}, or lower instance_group's count or max_batch_size "
        "(for ram_open_head the sizes in its parameters) and make the plans again: restart the "
        "container, or run 'make plans' inside"
    )
    if plans > free:
        return error(subject, f"the plans alone do not fit: {text}", remedy)
    if whole > free:
        return warning(subject, f"may not fit, by an untested estimate: {text}", remedy)
    return fine(subject, text)


def _plan_bytes(root: Path, model: Model) -> int:
    """Return the size of the plan; before it is built, that of the graph it will be built of."""
    for path in (model.file(PLAN), model.plan_graph, model.file(FLOAT32_GRAPH)):
        files = [file for file in (root / path, root / f"{path}.data") if file.is_file()]
        if files:
            return sum(file.stat().st_size for file in files)
    return 0


def _work_bytes(view: RepositoryView, variant: Variant, model: Model) -> int:
    """Return the bytes per instance for the largest inputs that the config allows.

    They are the inputs, the outputs, and the values in the widest place as if no layers were
    fused. Encoder: the first stage, (S / 4)² tokens C wide, with its inner layer (4 C) or its
    queries, keys, values and attention scores (heads · window²). Heads: the labels, `hidden_size`
    wide, with their inner layer or their attention scores. Heat maps: the same of the tags that get
    one, with all their descriptions. Text encoder: tokens as wide as the embeddings, as in CLIP's
    ViT-B/16.
    """
    config = view.configs[model.name]
    largest = {entry.name: config.sizes(entry.name)[-1] for entry in config.model.input}
    if not model.image_input:
        sentences, tokens = largest["input_ids"]
        width = variant.label_width
        heads = max(width // TEXT_HEAD, 1)
        rows, inner, scores = sentences * tokens, 4 * width, heads * tokens
        bindings = 4 * (2 * rows + sentences * width)
    else:
        images = largest[model.image_input][0]
        sizes = view.tensor_bytes(variant)
        tensors = (*config.model.input, *config.model.output)
        bindings = images * sum(sizes.get(tensor.name, 0) for tensor in tensors)
        if model.name == "ram_encoder":
            rows, width = images * (variant.image_size // 4) ** 2, variant.embed_dim
            inner, scores = 4 * width, variant.num_heads[0] * variant.window_size**2
        elif "tag_ids" in largest:
            tags = largest["tag_ids"][-1]
            rows, width = images * tags, variant.hidden_size
            inner = variant.descriptions * variant.label_width
            scores = variant.attention_heads * variant.num_tokens
            if "label_embeds" in largest:
                bindings += 4 * largest["label_embeds"][0] * inner
        else:
            (labels,) = largest.get("label_embeds", (variant.num_tags,))
            rows, width = images * labels, variant.hidden_size
            inner, scores = variant.intermediate_size, variant.attention_heads * variant.num_tokens
            # The logits above are the vocabulary's; the labels come as an input.
            bindings += 4 * images * (labels - variant.num_tags)
            if "label_embeds" in largest:
                bindings += 4 * labels * variant.descriptions * variant.label_width
    value_bytes = 2 if HALF_GRAPH in model.graphs else 4
    return value_bytes * rows * (2 * width + max(inner, 2 * width + scores)) + bindings


def shared_memory() -> tuple[int, int] | None:
    """Return the total and free bytes of the shared memory's file system; None without one."""
    if not SHARED_MEMORY.is_dir():
        return None
    usage = shutil.disk_usage(SHARED_MEMORY)
    return usage.total, usage.free


def check_shared_memory(view: RepositoryView, memory: tuple[int, int] | None) -> Iterator[Finding]:
    """Compare with Σ instances · (region + images · (inputs + outputs of one image)).

    Args:
        view: the repository.
        memory: total and free bytes of shared memory; None if there is none.
    """
    subject, variant = "shared memory", view.variant
    # The OpenVINO backend of the CPU profile is in Python too.
    backends = ("python", OPENVINO_BACKEND) if view.profile == CPU else ("python",)
    models = [name for name, config in view.configs.items() if config.model.backend in backends]
    if memory is None:
        yield error(subject, "/dev/shm is missing", "mount a tmpfs there, or run in a container")
        return
    total, free = memory
    if not models or variant is None:
        text = f"{mebibytes(free)} free; the need is not known without configs and manifest"
        yield unknown(subject, text, "fix the errors above first")
        return
    counts = {name: view.instances(name) for name in models}
    start = sum(counts.values()) * REGION
    need = sum(count * instance_bytes(view, variant, name) for name, count in counts.items())
    text = (
        f"{mebibytes(free)} of {mebibytes(total)} free; {sum(counts.values())} instances take "
        f"{mebibytes(start)} to start, and {mebibytes(need)} if all of them have full batches of "
        "the largest images"
    )
    remedy = (
        f"give the container --shm-size={-(-need // 2**30)}g (without a container remount /dev/shm "
        "with that size), or lower max_bytes or the instances of ram_preprocess and ram_open_labels"
    )
    if free < start:
        yield error(subject, text, remedy)
    elif free < need:
        yield warning(subject, text, remedy)
    else:
        yield fine(subject, text)


def available_memory(meminfo: Path = MEMORY_INFO) -> int | None:
    """Return the bytes that the kernel would give to programs; None if it does not report them."""
    with contextlib.suppress(OSError):
        return read_numbers(meminfo).get("MemAvailable")
    return None


def check_decoding_memory(view: RepositoryView, available: int | None) -> Iterator[Finding]:
    """Compare with instances · (what the process that decodes may take + an ordinary JPEG).

    Args:
        view: the repository.
        available: bytes of memory; None if that is not known.
    """
    subject, name = "decoding memory", "ram_preprocess"
    if name not in view.configs or available is None:
        missing = "the config" if available else "what the kernel has available"
        yield unknown(subject, f"not estimated without {missing}", "fix the errors above first")
        return
    parameters = view.configs[name].model.parameters
    limits = ImageLimits(
        *(int(parameters[key].string_value) for key in ("max_bytes", "max_pixels"))
    )
    each = preprocessing.worst_bytes(limits) + ORDINARY_JPEG
    count = view.instances(name)
    text = (
        f"{mebibytes(available)} available; {count} instances of {name} take at most "
        f"{mebibytes(count * each)}, {mebibytes(each)} each, if all decode the worst of images"
    )
    if count * each > available:
        yield warning(subject, text, f"lower max_pixels or the instances of {name}")
    else:
        yield fine(subject, text)


def instance_bytes(view: RepositoryView, variant: Variant, model: str) -> int:
    """Estimate what one instance of a Python model takes for a full batch of largest images."""
    config, sizes = view.configs[model].model, view.tensor_bytes(variant)
    image = sum(sizes.get(tensor.name, 0) for tensor in (*config.input, *config.output))
    if model == "ram_postprocess":
        # The logits again, a score and an id per tag, and all of their names.
        vocabulary = view.root / VOCABULARY
        image += 3 * sizes["logits"] + (vocabulary.stat().st_size if vocabulary.is_file() else 0)
    return REGION + view.largest_batch(model) * image
