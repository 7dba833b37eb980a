"""The table of models, and where a model repository keeps its files, relative to its root."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
DEFAULT_REPOSITORY = PROJECT / "model_repository"  # all other repositories get its static files
OPTIONAL_MODELS = PROJECT / "build" / "optional_models"  # what `make text-encoder` adds to one
BACKENDS = PROJECT / "build" / "backends"  # those that a server on a CPU needs beside its own
DEMO_IMAGES = PROJECT / "build" / "demo" / "images"

CPU, GPU = PROFILES = ("cpu", "gpu")
# Names of files in a version folder: a graph in float32, in half precision (TensorRT makes plans of
# it), and in INT8 for the CPU; the plan; what the plan was made of and for.
FLOAT32_GRAPH, HALF_GRAPH, INT8_GRAPH = "model.onnx", "half.onnx", "int8.xml"
PLAN, FACTS = "model.plan", "plan.json"
GRAPH_FILES = (FLOAT32_GRAPH, HALF_GRAPH, INT8_GRAPH, PLAN)  # what `verify` compares
NONE = "none"
PRECISIONS = ("float16", "bfloat16", NONE)  # of the graphs for TensorRT, the default first
OPENVINO_BACKEND = "ram_openvino"  # ours, in build/backends/; "openvino" is NVIDIA's


class Engine(StrEnum):
    """What runs a model."""

    ENSEMBLE = "ensemble"
    PYTHON = "python"  # Triton's Python backend, on the CPU in every profile
    GRAPH = "graph"  # TensorRT in the GPU profile, OpenVINO in the CPU profile


@dataclass(frozen=True)
class Model:
    """A model of the repository.

    Attributes:
        name: the name of its folder.
        engine: what runs it.
        optional: whether only `make text-encoder` adds it; all others are always installed.
        steps: names of an ensemble's models, in their order.
        graphs: names of the graph files that a build writes; half precision and INT8 may be
            switched off.
        image_input: the input of a graph that has one row per image.
        takes_labels: whether a graph takes label embeddings as an input.
        makes_maps: whether a graph makes heat maps: it runs only for requests that name them.
        numbers: parameters in the config that the Python model reads, and each one's type.
    """

    name: str
    engine: Engine
    optional: bool = False
    steps: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()
    image_input: str = ""
    takes_labels: bool = False
    makes_maps: bool = False
    numbers: Mapping[str, type[int] | type[float]] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Return the path of a file in its version folder."""
        return Path(self.name, "1", name)

    @property
    def plan_graph(self) -> Path:
        """The graph that TensorRT makes its plan of: in half precision if it has that."""
        return self.file(HALF_GRAPH if HALF_GRAPH in self.graphs else FLOAT32_GRAPH)


_ALL = (FLOAT32_GRAPH, HALF_GRAPH, INT8_GRAPH)
_WITHOUT_INT8 = (FLOAT32_GRAPH, HALF_GRAPH)
_RAM = ("ram_preprocess", "ram_encoder", "ram_head", "ram_postprocess", "ram_maps")
_RAM_PIXELS = ("ram_pixels_check", *_RAM[1:])
_RAM_OPEN = (
    "ram_open_labels",
    "ram_preprocess",
    "ram_encoder",
    "ram_open_head",
    "ram_open_postprocess",
    "ram_open_maps",
)
_IMAGE_LIMITS = {"max_bytes": int, "max_pixels": int, "nice": int}
_LABEL_LIMITS = {
    "max_labels": int,
    "max_new_labels": int,
    "max_name_bytes": int,
    "default_threshold": float,
}
MODELS = {
    model.name: model
    for model in (
        Model("ram", Engine.ENSEMBLE, steps=_RAM),
        Model("ram_preprocess", Engine.PYTHON, numbers=_IMAGE_LIMITS),
        Model("ram_encoder", Engine.GRAPH, graphs=_ALL, image_input="pixels"),
        Model("ram_head", Engine.GRAPH, graphs=_ALL, image_input="image_embeds"),
        Model("ram_postprocess", Engine.PYTHON),
        Model("ram_pixels", Engine.ENSEMBLE, steps=_RAM_PIXELS),
        Model("ram_pixels_check", Engine.PYTHON),
        Model("ram_open", Engine.ENSEMBLE, steps=_RAM_OPEN),
        Model("ram_open_labels", Engine.PYTHON, numbers=_LABEL_LIMITS),
        Model(
            "ram_open_head",
            Engine.GRAPH,
            graphs=_WITHOUT_INT8,
            image_input="image_embeds",
            takes_labels=True,
        ),
        Model("ram_open_postprocess", Engine.PYTHON),
        *(
            Model(
                name,
                Engine.GRAPH,
                graphs=_WITHOUT_INT8,
                image_input="image_embeds",
                takes_labels=takes_labels,
                makes_maps=True,
            )
            for name, takes_labels in (("ram_maps", False), ("ram_open_maps", True))
        ),
        Model("ram_open_text", Engine.PYTHON, optional=True, numbers={"cached_names": int}),
        Model("ram_open_text_encoder", Engine.GRAPH, optional=True, graphs=(FLOAT32_GRAPH,)),
    )
}


def models_in(root: Path) -> list[Model]:
    """Return the models that a repository has to have, and the optional ones that it has."""
    return [one for one in MODELS.values() if not one.optional or (root / one.name).is_dir()]


def planned_models(root: Path) -> list[Model]:
    """Return those of them that TensorRT runs in the GPU profile."""
    return [model for model in models_in(root) if model.engine is Engine.GRAPH]


def graph_steps(ensemble: str) -> tuple[str, ...]:
    """Return those steps that run a graph in every request: the encoder, then the head."""
    steps = (MODELS[step] for step in MODELS[ensemble].steps)
    return tuple(one.name for one in steps if one.engine is Engine.GRAPH and not one.makes_maps)


ENCODER = MODELS["ram_encoder"].file(FLOAT32_GRAPH)
HEAD = MODELS["ram_head"].file(FLOAT32_GRAPH)
OPEN_HEAD = MODELS["ram_open_head"].file(FLOAT32_GRAPH)  # it takes its labels as an input
TEXT_ENCODER = MODELS["ram_open_text_encoder"].file(FLOAT32_GRAPH)
INT8_ENCODER = ENCODER.with_name(INT8_GRAPH)
INT8_HEAD = HEAD.with_name(INT8_GRAPH)
VOCABULARY = MODELS["ram_postprocess"].file("vocabulary.json")
LABELS = Path("ram_open_labels", "1")  # the vocabulary again, with its label embeddings
# The image size: what pictures are squashed to, and what pixels have to have.
PREPROCESSING = MODELS["ram_preprocess"].file("variant.json")
PIXELS = MODELS["ram_pixels_check"].file("variant.json")
MANIFEST = MODELS["ram"].file("manifest.json")

STAGING_PREFIX = ".staging-"
# What is made of a build's graphs, and fits no others.
DERIVED_FILES = tuple(
    f"*/1/{name}"
    for name in (PLAN, FACTS, HALF_GRAPH, f"{HALF_GRAPH}.data", INT8_GRAPH, "int8.bin")
)
# What belongs to the project in a repository, not to a build.
STATIC_FILES = (
    "*/config.pbtxt",
    "*/configs/*.pbtxt",
    "*/warmup/*",
    "*/1/*.py",
    "*/1/.gitkeep",
)
