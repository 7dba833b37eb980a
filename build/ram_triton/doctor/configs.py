"""Configs: each parses, belongs to its folder, and takes the batches that the ensemble allows."""

import math
from collections.abc import Iterator, Sequence

from ram_triton.doctor.finding import Finding, error, fine, unknown
from ram_triton.doctor.machine import Gpu
from ram_triton.doctor.repository_view import Inspected
from ram_triton.repository.layout import INT8_ENCODER, MODELS

SUBJECT = "configs"


def check_configs(repository: Inspected) -> Iterator[Finding]:
    """Read the profile's configs into `repository.configs`, and tell what is wrong with them."""
    try:
        from google.protobuf import text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    except ImportError:
        yield unknown(
            SUBJECT,
            "cannot be parsed: tritonclient is not installed, and what depends on them is left out",
            "pip install 'tritonclient[grpc]'",
        )
        return
    found = []
    for model in repository.models:
        path = repository.config_file(model)
        name = path.relative_to(repository.root)
        try:
            config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
        except (OSError, ValueError, text_format.ParseError) as problem:
            reason = getattr(problem, "strerror", None) or " ".join(str(problem).split())
            found.append(
                error(SUBJECT, f"{name}: {reason}", "mend it, or copy the project's config there")
            )
            continue
        repository.configs[model] = config
        if config.name not in ("", model):
            found.append(
                error(SUBJECT, f"{name}: its name is {config.name!r}", f'write name: "{model}"')
            )
    found += [*_batches(repository), *_graphs(repository), *_numbers(repository)]
    count = len(repository.models)
    yield from found or [fine(SUBJECT, f"{count} models, profile {repository.profile}")]


def check_stray_files(repository: Inspected) -> Iterator[Finding]:
    """Tell what lies in the root that is no model: Triton stops over it."""
    strays = [
        path.name
        for path in sorted(repository.root.iterdir())
        if not path.is_dir() or not (path / "config.pbtxt").is_file()
    ]
    strays = [name for name in strays if name not in repository.models]
    for name in strays:
        yield error(
            "stray files",
            f"{name} is no model: the server exits over it",
            f"move {name} out of {repository.root}",
        )
    if not strays:
        yield fine("stray files", "none")


def check_gpu_ids(repository: Inspected, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Tell which configs name a GPU that is not there: the server exits over it."""
    there = {gpu.index for gpu in gpus}
    for model in repository.planned:
        if model not in repository.configs:
            continue
        named = {id for group in repository.configs[model].instance_group for id in group.gpus}
        for id in sorted(named - there):
            yield error(
                "GPUs",
                f"{model}/config.pbtxt: instance_group names GPU {id}, which is not there",
                f"leave gpus out of instance_group, or name {' or '.join(map(str, sorted(there)))}",
            )


def _numbers(repository: Inspected) -> list[Finding]:
    found = []
    for model, config in repository.configs.items():
        for name, kind in MODELS[model].numbers.items():
            text = config.parameters[name].string_value if name in config.parameters else "none"
            if not _is_number(text, kind):
                where = repository.config_file(model).relative_to(repository.root)
                what = "a whole number" if kind is int else "a number"
                found.append(
                    error(
                        SUBJECT,
                        f"{where}: the parameter '{name}' is '{text}', not {what}",
                        "correct it, or copy the project's config there",
                    )
                )
    return found


def _is_number(text: str, kind: type[int] | type[float]) -> bool:
    """Tell whether the model can read a parameter, and use it: finite and not negative."""
    try:
        return 0 <= kind(text) < math.inf
    except ValueError:
        return False


def _batches(repository: Inspected) -> list[Finding]:
    ensemble = repository.configs.get("ram")
    if ensemble is None:
        return []
    return [
        error(
            SUBJECT,
            f"{model}: max_batch_size {config.max_batch_size} is below the ensemble's "
            f"{ensemble.max_batch_size}",
            f"raise it, or lower max_batch_size in ram/config.pbtxt to {config.max_batch_size}",
        )
        for model, config in repository.configs.items()
        if model in MODELS["ram"].steps and config.max_batch_size < ensemble.max_batch_size
    ]


def _graphs(repository: Inspected) -> Iterator[Finding]:
    """Tell of graphs that configs name, but the build did not write."""
    built = repository.manifest.get("artefacts")
    for model, config in repository.configs.items():
        name = f"{model}/1/{config.default_model_filename}"
        if not built or not config.default_model_filename or name in built:
            continue  # what was built and is missing, the artefacts' check tells
        if not (repository.root / name).is_file():
            path = repository.config_file(model).relative_to(repository.root)
            remedy = "run 'make model'"
            if config.default_model_filename == INT8_ENCODER.name:
                remedy = f"run 'make model' with INT8=DIR, or name model.onnx in {path}"
            yield error(SUBJECT, f"{path} names {name}, which is missing", remedy)
