"""Where a model repository keeps its files, relative to its root."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
DEFAULT_REPOSITORY = PROJECT / "model_repository"  # whose static files all other repositories get
OPTIONAL_MODELS = PROJECT / "build" / "optional_models"  # what `make text-encoder` adds to one
DEMO_IMAGES = PROJECT / "build" / "demo" / "images"

ENCODER = Path("ram_encoder/1/model.onnx")
HEAD = Path("ram_head/1/model.onnx")
OPEN_HEAD = Path("ram_open_head/1/model.onnx")  # that is given its labels
# The same graphs in half precision, which TensorRT makes plans of.
TYPED_ENCODER = ENCODER.with_name("typed.onnx")
TYPED_HEAD = HEAD.with_name("typed.onnx")
TYPED_OPEN_HEAD = OPEN_HEAD.with_name("typed.onnx")
# And in INT8 for the CPU, where they were asked for.
INT8_ENCODER = ENCODER.with_name("int8.xml")
INT8_HEAD = HEAD.with_name("int8.xml")
VOCABULARY = Path("ram_postprocess/1/vocabulary.json")
TEXT_ENCODER = Path("ram_open_text_encoder/1/model.onnx")  # where one was added
LABELS = Path("ram_open_labels/1")  # the vocabulary again, with its label embeddings
PREPROCESSING = Path("ram_preprocess/1/variant.json")
MANIFEST = Path("ram/1/manifest.json")
PLAN, FACTS = "model.plan", "plan.json"  # beside a graph, what TensorRT made of it
CPU, GPU = PROFILES = ("cpu", "gpu")  # what serves: OpenVINO, TensorRT
# What may be in a version folder, and what `verify` compares.
GRAPH_FILES = (ENCODER.name, TYPED_ENCODER.name, INT8_ENCODER.name, PLAN)
NONE = "none"
PRECISIONS = ("float16", "bfloat16", NONE)  # of the graphs for TensorRT, the default first
STAGING_PREFIX = ".staging-"
# What is made of a build's graphs, and holds for no others.
DERIVED_FILES = (
    "*/1/*.plan",
    "*/1/plan.json",
    "*/1/typed.onnx",
    "*/1/typed.onnx.data",
    "*/1/int8.xml",
    "*/1/int8.bin",
)
# Models that are no part of the project's repository, but may have been added to it.
ADDED = ("ram_open_text", "ram_open_text_encoder")
# What belongs to the project in a repository, not to a build.
STATIC_FILES = ("*/config.pbtxt", "*/configs/*.pbtxt", "*/1/*.py", "*/1/.gitkeep")
