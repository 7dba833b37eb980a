"""Where a model repository keeps its files, relative to its root."""

from pathlib import Path

ENCODER = Path("ram_encoder/1/model.onnx")
HEAD = Path("ram_head/1/model.onnx")
VOCABULARY = Path("ram_postprocess/1/vocabulary.json")
PREPROCESSING = Path("ram_preprocess/1/variant.json")
MANIFEST = Path("ram/1/manifest.json")
STAGING_PREFIX = ".staging-"
# What belongs to the project in a repository, not to a build.
STATIC_FILES = ("*/config.pbtxt", "*/configs/*.pbtxt", "*/1/*.py", "*/1/.gitkeep")
