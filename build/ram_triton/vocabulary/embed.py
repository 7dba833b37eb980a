"""Embeds names that a checkpoint does not know: by a text encoder's folder or a user's function."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ram_triton.errors import VocabularyError

# Names in English to label embeddings, (names, width) float32.
Embed = Callable[[list[str]], npt.NDArray[np.float32]]


def choose_embed(spec: str, templates: Path | None = None) -> Embed:
    """Return a text encoder.

    Args:
        spec: a folder as `load_text_encoder` takes it; or `module:function`, see `load_embed`.
        templates: a file of sentences for a folder's text encoder; by default RAM's.

    Raises:
        VocabularyError, TextEncoderError: it cannot be used.
    """
    if not Path(spec).is_dir():
        return load_embed(spec)
    try:
        from ram_triton.text_encoder.checkpoint import load_text_encoder
        from ram_triton.text_encoder.templates import choose_templates
    except ImportError as error:
        raise VocabularyError(
            f"the text encoder needs the package {error.name}: 'make vocabulary TEXT_ENCODER=…' "
            "installs it"
        ) from error
    encoder = load_text_encoder(Path(spec))
    sentences = choose_templates(encoder.kind, templates)
    return lambda names: encoder.embed(names, sentences)


def load_embed(spec: str) -> Embed:
    """Import a user's function.

    Args:
        spec: `module:function`, of a module in the current folder or an installed one; the function
            takes a list of names in English, and returns float32 (names, width).

    Raises:
        VocabularyError: the module cannot be imported, or it has no such function.
    """
    module, colon, name = spec.partition(":")
    if not colon:
        raise VocabularyError(f"the text encoder '{spec}' is not a folder or MODULE:FUNCTION")
    folder = Path.cwd()
    with _imports_from(folder), _without_loaded(module, folder):
        try:
            function = getattr(importlib.import_module(module), name, None)
        except (Exception, SystemExit) as error:  # the module's own code may raise anything
            raise VocabularyError(
                f"the text encoder '{spec}' cannot be imported ({in_one_line(error)})"
            ) from error
    if not callable(function):
        raise VocabularyError(f"the text encoder '{spec}' is not a function of its module")

    def embed(names: list[str]) -> Any:
        with _imports_from(folder):  # a function may import, too
            return function(names)

    return embed


def in_one_line(error: BaseException) -> str:
    """Return an exception's type and text without line breaks."""
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
    """If the folder has a module of this name, let no loaded module stand in its place."""
    top = module.partition(".")[0]
    loaded = {}
    if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
        names = [name for name in sys.modules if name.partition(".")[0] == top]
        loaded = {name: sys.modules.pop(name) for name in names}
    try:
        yield
    finally:
        if loaded:
            for name in [name for name in sys.modules if name.partition(".")[0] == top]:
                del sys.modules[name]
            sys.modules.update(loaded)
