"""GPU memory: what plans and instances are estimated to take, against what is free."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ram_triton.doctor.finding import Finding, error, fine, unknown, warning
from ram_triton.doctor.machine import Gpu
from ram_triton.doctor.repository_view import Inspected, mebibytes, read_json

SUBJECT = "GPU memory"
# CUDA's own share, once for a process: its context, and kernels of TensorRT's libraries.
CONTEXT = 512 * 2**20
VALUE_BYTES = {"float32": 4}  # by precision; half of it for all others
HALF_BYTES = 2
TEXT_HEAD = 64  # width of each attention head of a CLIP's text encoder


def check_gpu_memory(repository: Inspected, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Estimate each GPU's load: context + Σ plan + instances · (activations + inputs, outputs)."""
    missing = [name for name in repository.planned if name not in repository.configs]
    if missing or repository.variant is None:
        what = f"config of {missing[0]}" if missing else "manifest's variant"
        yield unknown(SUBJECT, f"not estimated without the {what}", "mend what stands above first")
        return
    for gpu in gpus:
        subject = f"{SUBJECT} {gpu.index}"
        if gpu.free is None:
            yield unknown(
                subject,
                f"the driver does not tell what is free on {gpu.name}",
                "watch 'nvidia-smi' while the server starts and answers a full batch",
            )
            continue
        parts = {name: _parts(repository, name, gpu.index) for name in repository.planned}
        weights = sum(plan for plan, _, count in parts.values() if count)
        whole = CONTEXT + weights + sum(count * work for _, work, count in parts.values())
        text = (
            f"about {mebibytes(whole)} of {mebibytes(gpu.free)} free: CUDA {mebibytes(CONTEXT)}"
            + "".join(
                f", {name} {mebibytes(plan)} plan + {count} × {mebibytes(work)}"
                for name, (plan, work, count) in parts.items()
                if count
            )
        )
        if CONTEXT + weights > gpu.free:
            yield error(subject, f"the plans alone do not fit: {text}", _remedy(gpu))
        elif whole > gpu.free:
            yield warning(subject, f"may not fit: {text}", _remedy(gpu))
        else:
            yield fine(subject, text)


def _remedy(gpu: Gpu) -> str:
    return (
        f"end what else runs on GPU {gpu.index}, or lower instance_group's count or "
        "max_batch_size (of ram_open_head the sizes in its parameters) and make the plans again: "
        "restart the container, or build/make_plans.py inside"
    )


def _parts(repository: Inspected, model: str, gpu: int) -> tuple[int, int, int]:
    """Bytes of a plan, bytes of work for each of its instances, and their number on a GPU."""
    folder = repository.root / model / "1"
    plan = _plan_bytes(folder)
    facts = read_json(folder / "plan.json")
    precision = facts.get("precision") if isinstance(facts, dict) else None
    values, bindings = _work(repository, model)
    work = values * VALUE_BYTES.get(precision, HALF_BYTES) + bindings
    return plan, work, repository.instances_on(model, gpu)


def _plan_bytes(folder: Path) -> int:
    """Size of the plan, or before it is built that of the graph which it will be built of."""
    for pattern in ("model.plan", "half.onnx*", "model.onnx*"):
        if found := [path.stat().st_size for path in folder.glob(pattern)]:
            return sum(found)
    return 0


def _work(repository: Inspected, model: str) -> tuple[int, int]:
    """Values in a model's widest place, as if no layers were fused, and bytes of inputs, outputs.

    Both are for the largest inputs that the config allows. Encoder: the first stage, (S / 4)²
    tokens C wide, with its inner layer (4 C) or its queries, keys, values and attention scores
    (heads · window²). Heads: the labels, `hidden_size` wide, with their inner layer or their
    attention scores. Text encoder: tokens as wide as the embeddings, as in CLIP's ViT-B/16.
    """
    variant, config = repository.variant, repository.configs[model]
    largest = {name: sizes[-1] for name, sizes in repository.free_sizes(model).items()}
    if model == "ram_open_text_encoder":
        sentences, tokens = largest["input_ids"]
        width = variant.label_width
        heads = max(width // TEXT_HEAD, 1)
        rows, inner, scores = sentences * tokens, 4 * width, heads * tokens
        bindings = 4 * (2 * rows + sentences * width)
    else:
        (images,) = largest[config.input[0].name]
        sizes = repository.tensor_bytes()
        bindings = sum(sizes.get(tensor.name, 0) for tensor in (*config.input, *config.output))
        labels = 0
        if model == "ram_encoder":
            rows, width = (variant.image_size // 4) ** 2, variant.embed_dim
            inner, scores = 4 * width, variant.num_heads[0] * variant.window_size**2
        else:
            rows, width = variant.num_tags, variant.hidden_size
            inner, scores = variant.intermediate_size, variant.attention_heads * variant.num_tokens
        if model == "ram_open_head":
            (rows,) = largest["label_embeds"]
            bindings += 4 * (rows - variant.num_tags)  # of the logits, counted for the vocabulary
            labels = 4 * rows * variant.descriptions * variant.label_width
        rows, bindings = images * rows, images * bindings + labels
    return rows * (2 * width + max(inner, 2 * width + scores)), bindings
