"""Where a model repository keeps its files, relative to its root."""

from pathlib import Path

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
TEXT_ENCODER = Path("ram_text_encoder/1/model.onnx")  # where one was added
LABELS = Path("ram_labels/1")  # the vocabulary again, with its label embeddings
PREPROCESSING = Path("ram_preprocess/1/variant.json")
MANIFEST = Path("ram/1/manifest.json")
PLAN, FACTS = "model.plan", "plan.json"  # beside a graph, what TensorRT made of it
STAGING_PREFIX = ".staging-"
# What is made of a build's graphs, and holds for no others.
DERIVED_FILES = ("*/1/*.plan", "*/1/plan.json", "*/1/typed.onnx", "*/1/typed.onnx.data",
                 "*/1/int8.xml", "*/1/int8.bin")  # fmt: skip
# Models that are no part of the project's repository, but may have been added to it.
ADDED = ("ram_text", "ram_text_encoder")
# What belongs to the project in a repository, not to a build.
STATIC_FILES = ("*/config.pbtxt", "*/configs/*.pbtxt", "*/1/*.py", "*/1/.gitkeep")
