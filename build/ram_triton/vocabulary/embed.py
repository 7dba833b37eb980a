"""Embeds names by a text encoder: a folder, or a user's function."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ram_triton.errors import FileError, VocabularyError
from ram_triton.files import require_file, require_writable_file, write_atomically
from ram_triton.vocabulary.names import read_names

ENCODER_CONFIGS = ("config.json", "open_clip_config.json")  # of transformers, of open_clip

# Names in English to label embeddings, (names, width) float32.
Embed = Callable[[list[str]], npt.NDArray[np.float32]]


def choose_embed(spec: str, templates: Path | None = None) -> Embed:
    """Return a text encoder.

    Args:
        spec: a folder as `load_text_encoder` takes it; or `module:function` of a module in the
            current folder or an installed one: it takes a list of names in English, and returns
            float32 (names, width).
        templates: a file of sentences for a folder's text encoder; by default RAM's.

    Raises:
        VocabularyError, TextEncoderError: it cannot be used.
    """
    require_text_encoder(spec, templates)
    if not Path(spec).is_dir():
        return _import_function(spec)
    try:
        from ram_triton.text_encoder.checkpoint import load_text_encoder
        from ram_triton.text_encoder.templates import choose_templates
    except ImportError as error:
        raise VocabularyError(
            f"the text encoder needs the package {error.name}: "
            ".venv/bin/pip install -e '.[train]' installs it"
        ) from error
    encoder = load_text_encoder(Path(spec))
    sentences = choose_templates(encoder.kind, templates)
    return lambda names: encoder.embed(names, sentences)


def require_text_encoder(spec: str | Path, templates: Path | None = None) -> None:
    """Check what `choose_embed` takes as far as that is quick: it comes before slow imports.

    Raises:
        VocabularyError: there is no such folder, it contains no text encoder, or the templates
            cannot be read.
    """
    folder = Path(spec)
    if not folder.is_dir():
        if isinstance(spec, Path):
            raise VocabularyError(f"{folder}: no such folder")
        if ":" not in spec:
            raise VocabularyError(f"the text encoder '{spec}' is not a folder or MODULE:FUNCTION")
    elif not any((folder / name).is_file() for name in ENCODER_CONFIGS):
        raise VocabularyError(f"{folder}: {' or '.join(ENCODER_CONFIGS)} is missing")
    if templates is not None:
        require_file(templates)


def _import_function(spec: str) -> Embed:
    module, _, name = spec.partition(":")
    folder = Path.cwd()
    with _imports_from(folder), _without_loaded(module, folder):
        try:
            function = getattr(importlib.import_module(module), name, None)
        except (Exception, SystemExit) as error:  # the module's own code may raise anything
            raise VocabularyError(
                f"the text encoder '{spec}' cannot be imported ({_in_one_line(error)})"
            ) from error
    if not callable(function):
        raise VocabularyError(f"the text encoder '{spec}' is not a function of its module")

    def embed(names: list[str]) -> Any:
        with _imports_from(folder):  # a function may import, too
            return function(names)

    return embed


def embed_names(names: list[str], embed: Embed) -> npt.NDArray[np.float32]:
    """Embed names, and check what a user's function may do wrong.

    Returns:
        (names, width) float32, finite.

    Raises:
        VocabularyError: there is an error in the text encoder, or its result is something else.
    """
    try:
        embeddings = np.asarray(embed(names), np.float32)
    except Exception as error:  # a user's function may raise anything
        raise VocabularyError(
            f"the text encoder did not return embeddings ({_in_one_line(error)})"
        ) from error
    if embeddings.ndim != 2 or len(embeddings) != len(names):
        raise VocabularyError(
            f"the text encoder's embeddings have the shape {embeddings.shape} for {len(names)} "
            "names, not (names, width)"
        )
    if not np.isfinite(embeddings).all():
        raise VocabularyError("the text encoder's embeddings contain NaN or infinite values")
    return embeddings


def write_label_embeddings(
    names: Path, text_encoder: str, output: Path, templates: Path | None = None
) -> tuple[int, int]:
    """Embed a list of names for training; see `training.config.Data.label_embeddings`.

    Args:
        names: the list, as `read_names` takes it.
        text_encoder: as `choose_embed` takes it.
        output: the file to make, .npy, float32 (names, width), in the list's order.
        templates: sentences for the text encoder, likewise.

    Returns:
        The array's shape.

    Raises:
        VocabularyError, TextEncoderError: the names or the text encoder cannot be used.
        FileError: the file cannot be written.
    """
    if output.suffix != ".npy":
        raise FileError(f"{output}: must end in .npy")
    require_writable_file(output)
    listed = read_names(names)
    embeddings = embed_names([one.name for one in listed], choose_embed(text_encoder, templates))
    write_atomically(output, lambda unfinished: np.save(unfinished, embeddings))
    return len(listed), embeddings.shape[1]


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Find modules in this folder first, as Python does for a script in it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _without_loaded(module: str, folder: Path) -> Iterator[None]:
    """Import the folder's module if it has one, and leave loaded what was loaded before."""
    top = module.partition(".")[0]
    if not ((folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()):
        yield
        return
    loaded = _pop_modules(top)
    try:
        yield
    finally:
        _pop_modules(top)  # the user's: a later import of this name may mean ours
        sys.modules.update(loaded)


def _pop_modules(top: str) -> dict[str, ModuleType]:
    """Take a top-level module and those below it out of what is loaded."""
    names = [name for name in sys.modules if name.partition(".")[0] == top]
    return {name: sys.modules.pop(name) for name in names}
