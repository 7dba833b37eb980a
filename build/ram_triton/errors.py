"""Every error of this package that a user can cause or meet.

`ram_triton.cli.main` prints the message, one line per fault, and returns exit status 1. A message
states what is wrong, where, and what to do; it has no line break unless each line is a fault.
"""

from collections.abc import Sequence

SHOWN_PROBLEMS = 100


def one_per_line(problems: Sequence[str]) -> str:
    """Return a message of many faults: the first ones, and the number of the others."""
    shown = [*problems[:SHOWN_PROBLEMS]]
    if len(problems) > len(shown):
        shown.append(f"… and {len(problems) - len(shown)} more")
    return "\n".join(shown)


class RamTritonError(Exception):
    """The base of all errors here; the message states what is wrong and what to do."""


class FileError(RamTritonError):
    """A file of the user's cannot be read or written."""


class CheckpointError(RamTritonError):
    """A checkpoint cannot be used."""


class VariantError(CheckpointError):
    """The weights have sizes that a RAM cannot have."""


class VocabularyError(RamTritonError):
    """Tag lists or a list of names cannot be used; one line per fault."""


class TextEncoderError(RamTritonError):
    """A text encoder cannot be used."""


class PictureError(RamTritonError):
    """A folder has no pictures, or a picture cannot be read."""


class RepositoryError(RamTritonError):
    """A model repository cannot be read or written."""


class EngineConfigError(RepositoryError):
    """A config.pbtxt cannot be read, or its graph does not fit it."""


class GraphError(RamTritonError):
    """A graph cannot be converted to half precision or INT8, or does not survive it."""


class EngineError(RamTritonError):
    """An engine is missing, or cannot build or run a graph."""


class MachineError(RamTritonError):
    """A fact about this machine, such as its GPU, cannot be read."""


class PlanError(RamTritonError):
    """A TensorRT plan cannot be made."""


class ParityError(RamTritonError):
    """Answers differ from PyTorch's by more than the limits, or cannot be compared."""


class ServerError(RamTritonError):
    """tritonserver cannot be started, ended by itself, or refuses or fails a request."""


class BenchmarkError(RamTritonError):
    """Figures would mean nothing, or cannot be measured."""


class LoadError(RamTritonError):
    """A load test cannot run, or one of its answers is wrong."""


class ConfigError(RamTritonError):
    """A training's settings cannot be used."""


class TextError(ConfigError):
    """The text parts of a training cannot be set up."""


class ManifestError(RamTritonError):
    """A training's data cannot be used; the message has a line for each problem, with its place."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(one_per_line(problems))


class StateError(RamTritonError):
    """A training cannot be resumed from its saved state."""


class PackageError(RamTritonError):
    """A package of the demo's data cannot be fetched."""
