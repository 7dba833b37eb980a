"""Checkpoint to model repository: every graph is exported, checked, halved, quantised, installed.

for each of GRAPHS:  export          float32, ONNX
for each of GRAPHS:  check           OpenVINO beside PyTorch
for each of GRAPHS:  halve, check    for TensorRT; run with real rounding
for each of GRAPHS:  quantise, check INT8 for the CPU, if asked for
all files:           install
"""

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ram_triton.engines.onnxruntime import RoundedGraph
from ram_triton.engines.openvino import CompiledGraph
from ram_triton.engines.tagger import Array, Graph, Logits, Pixels, torch_answers
from ram_triton.graphs.export import (
    export_encoder,
    export_head,
    export_maps,
    export_open_head,
    export_open_maps,
)
from ram_triton.graphs.half_precision import halve
from ram_triton.graphs.int8 import MOST_PICTURES, quantise_pair, require_nncf
from ram_triton.model.checkpoint import load_model
from ram_triton.model.ram import RAM
from ram_triton.model.weight_files import digest
from ram_triton.parity.compare import (
    Agreement,
    HalfPrecision,
    choose_tags,
    compare,
    compare_maps,
)
from ram_triton.parity.limits import FLOAT32_LIMITS, INT8_LIMITS, Figures, Limits
from ram_triton.parity.pictures import noise_batches, picture_batches, picture_files
from ram_triton.progress import Steps
from ram_triton.repository.layout import (
    ENCODER,
    FLOAT32_GRAPH,
    HALF_GRAPH,
    HEAD,
    INT8_ENCODER,
    INT8_GRAPH,
    INT8_HEAD,
    LABELS,
    MODELS,
    NONE,
    PIXELS,
    PRECISIONS,
    PREPROCESSING,
    VOCABULARY,
)
from ram_triton.repository.repository import Repository
from ram_triton.server_code import Vocabulary
from ram_triton.vocabulary.tag_lists import DEFAULT_THRESHOLD, read_vocabulary

TOOLS = (
    "ram-triton",
    "torch",
    "timm",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "numpy",
    "pillow",
)
LABEL_EMBEDS = LABELS / "label_embeds.npy"


# The models with graphs, and what writes each one in float32: the encoder, then what takes its
# embeddings, heads and heat maps. `MODELS` has the formats that each is made in.
GRAPHS: dict[str, Callable[[RAM, Path], None]] = {
    "ram_encoder": export_encoder,
    "ram_head": export_head,
    "ram_open_head": export_open_head,
    "ram_maps": export_maps,
    "ram_open_maps": export_open_maps,
}


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        checkpoint: a published-format RAM checkpoint.
        vocabulary: folder with the tag lists.
        repository: the model repository to write into.
        images: folder of pictures for the check.
        backbone: `swin_b` or `swin_l` if the weights must be that, else None.
        image_size: likewise, in pixels.
        default_threshold: for vocabularies without a list of thresholds.
        precision: of the graphs for TensorRT, one of `PRECISIONS`; with `none` there are none.
        int8: folder of pictures that calibrate INT8 graphs for the CPU; without it there are none.
        note: a remark on the model, kept in the manifest.
    """

    checkpoint: Path
    vocabulary: Path
    repository: Path
    images: Path
    backbone: str | None = None
    image_size: int | None = None
    default_threshold: float = DEFAULT_THRESHOLD
    precision: str = PRECISIONS[0]
    int8: Path | None = None
    note: str | None = None


def build(request: BuildRequest, say: Callable[[str], None] = print) -> Agreement:
    """Write a model into a repository, which stays as it was unless every check passes.

    Returns:
        How far the float32 graphs of `ram` agree with PyTorch.

    Raises:
        CheckpointError, VocabularyError, RepositoryError: the input cannot be used.
        PictureError: the pictures for the check, or for INT8, cannot be used.
        ParityError: the graphs do not compute what the checkpoint does.
        GraphError: the model does not fit half precision, or NNCF is missing for INT8.
    """
    if request.int8:  # before anything that takes long
        require_nncf()
        picture_files(request.int8)
    picture_files(request.images)
    steps = Steps(say)
    with steps.step("load the checkpoint"):
        model = load_model(request.checkpoint, request.backbone, request.image_size)
        checkpoint = {"name": request.checkpoint.name, "sha256": digest(request.checkpoint)}
    variant = model.variant
    say(f"{request.checkpoint}: {variant}")
    vocabulary = read_vocabulary(request.vocabulary, variant.num_tags, request.default_threshold)
    pictures = list(picture_batches(request.images, variant.image_size))
    noise = list(noise_batches(variant.image_size))
    repository = Repository(request.repository)
    with repository.staging() as staging:
        with steps.step("export to ONNX"):
            for name, export in GRAPHS.items():
                export(model, staging / MODELS[name].file(FLOAT32_GRAPH))
            _write_facts(staging, model, vocabulary)
        with steps.step("compute logits and heat maps in PyTorch"):
            answers = torch_answers(model, [*pictures, *noise], choose_tags)
        del model
        check = _Check(staging, *answers, vocabulary, say)
        with steps.step("compare the float32 graphs with PyTorch"):
            noisy = [*pictures, *noise]
            exact = check.on_cpu(FLOAT32_GRAPH, "float32", FLOAT32_LIMITS, noisy)
        half: dict[str, HalfPrecision] = {}
        if request.precision != NONE:
            with steps.step(f"make the {request.precision} graphs for TensorRT"):
                for path in (staging / MODELS[name].file(FLOAT32_GRAPH) for name in GRAPHS):
                    halve(path, path.with_name(HALF_GRAPH), request.precision)
            with steps.step(f"compare the {request.precision} graphs with PyTorch"):
                half = check.half(request.precision, pictures)
        int8 = None
        if request.int8:
            with steps.step(f"make INT8 graphs, calibrated on the pictures in {request.int8}"):
                examples = picture_batches(request.int8, variant.image_size, (1,))
                sources, targets = (ENCODER, HEAD), (INT8_ENCODER, INT8_HEAD)
                quantise_pair(
                    [staging / path for path in sources],
                    [staging / path for path in targets],
                    list(islice(examples, MOST_PICTURES)),
                )
            with steps.step("compare the INT8 graphs with PyTorch"):
                checked = check.on_cpu(INT8_GRAPH, "INT8", INT8_LIMITS, pictures)
                int8 = checked["ram_head"]
        measured = {
            name.removeprefix("ram_"): {
                "parity": figures.as_dict(),
                "half": half[name].as_dict() if half else None,
            }
            for name, figures in exact.items()
        }
        manifest = {
            "checkpoint": checkpoint,
            "note": request.note,
            "variant": variant.as_dict(),
            **measured.pop("head"),
            "int8": int8 and {"limits": INT8_LIMITS.as_dict(), "measured": int8.as_dict()},
            **measured,
            "steps": [asdict(step) for step in steps.taken],
            "tools": {
                "python": platform.python_version(),
                **{tool: importlib.metadata.version(tool) for tool in TOOLS},
            },
        }
        with steps.step("install"):
            repository.install(staging, manifest)
    say(f"{request.repository}: ready to serve")
    agreement = exact["ram_head"]
    assert isinstance(agreement, Agreement)
    return agreement


@dataclass(frozen=True)
class _Check:
    """Compares the staged graphs with PyTorch, one graph in memory at a time.

    Attributes:
        staging: the folder with the graphs.
        expected: PyTorch's logits of the pictures, then of noise, (images, tags).
        tag_ids: the tags whose heat maps are compared, (images, shown).
        maps: PyTorch's of these, (images, shown, side, side).
        vocabulary: the tags and their thresholds.
        say: prints a line.
    """

    staging: Path
    expected: Logits
    tag_ids: Array
    maps: Array
    vocabulary: Vocabulary
    say: Callable[[str], None]

    def on_cpu(
        self, format: str, precision: str, limits: Limits, batches: Sequence[Pixels]
    ) -> dict[str, Figures]:
        """Check the graphs that the CPU profile runs; returns figures per model.

        What is not in INT8 is in float32 here, which the served graphs need not be.
        """
        found = {}
        for name, agreement in self._compare(format, CompiledGraph, batches):
            self.say(f"{name}, {precision}: {agreement}")
            agreement.require(limits, f"the {precision} graphs with {name}")
            found[name] = agreement
        return found

    def half(self, precision: str, batches: Sequence[Pixels]) -> dict[str, HalfPrecision]:
        """Check the half-precision graphs, with real rounding; returns figures per model."""
        peaks: dict[str, dict[str, float]] = {}  # by the models, then the graph's tensors

        def load(path: Path) -> Graph:
            graph = RoundedGraph(path)
            peaks[path.parts[-3]] = graph.peaks  # which it fills as it runs
            return graph

        found = {}
        for name, agreement in self._compare(HALF_GRAPH, load, batches):
            measured = HalfPrecision.of(precision, agreement, peaks)
            self.say(f"{name}, {measured}")
            measured.require(f"the {precision} graphs with {name}")
            found[name] = measured
            del peaks[name]
        return found

    def _compare(
        self, format: str, load: Callable[[Path], Graph], batches: Sequence[Pixels]
    ) -> Iterator[tuple[str, Figures]]:
        """Run the encoder, then the others on its embeddings; yields each one's agreement."""
        encoder, *others = (MODELS[name] for name in GRAPHS if format in MODELS[name].graphs)
        encode = load(self.staging / encoder.file(format))
        embeds = [encode(pixels=pixels)["image_embeds"] for pixels in batches]
        del encode
        count = sum(map(len, embeds))
        tag_ids = self.tag_ids[:count]
        for model in others:
            given = {"label_embeds": self._labels()} if model.takes_labels else {}
            run = load(self.staging / model.file(format))
            if model.makes_maps:
                ids = np.split(tag_ids, np.cumsum([len(part) for part in embeds])[:-1])
                made = [
                    run(image_embeds=part, tag_ids=chosen, **given)["maps"]
                    for part, chosen in zip(embeds, ids, strict=True)
                ]
                del run
                maps = np.concatenate(made)
                yield model.name, compare_maps(self.maps[:count], tag_ids, maps, tag_ids)
            else:
                made = [run(image_embeds=part, **given)["logits"] for part in embeds]
                del run
                logits = np.concatenate(made)
                yield model.name, compare(self.expected[:count], logits, self.vocabulary)

    def _labels(self) -> Array:
        """Return the model's own labels as the head takes them, one per row."""
        embeds: Array = np.load(self.staging / LABEL_EMBEDS, mmap_mode="r")
        return embeds.reshape(len(embeds), -1)


def _write_facts(staging: Path, model: RAM, vocabulary: Vocabulary) -> None:
    """Write what the Python models of the repository read: tags, label embeddings, sizes."""
    for path in (VOCABULARY, LABEL_EMBEDS, PREPROCESSING, PIXELS):
        (staging / path).parent.mkdir(parents=True, exist_ok=True)
    vocabulary.save(staging / VOCABULARY)
    vocabulary.save(staging / LABELS / VOCABULARY.name)
    with torch.no_grad():
        np.save(staging / LABEL_EMBEDS, model.descriptions().numpy())
    size = json.dumps({"image_size": model.variant.image_size}) + "\n"
    for path in (PREPROCESSING, PIXELS):
        (staging / path).write_text(size)
