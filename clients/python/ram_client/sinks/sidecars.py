"""XMP sidecars: which file is a picture's, and how tags get into it and out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import installing
from ..files import Source, Url
from ..tag import Tag
from .sink import Sink, WriteFailed, explained, folder_of, keywords, replacing

if TYPE_CHECKING:
    from .xmp import Document

SUFFIX = ".xmp"
NAMES = ("darktable", "lightroom")  # photo.jpg.xmp, photo.xmp


class Sidecars(Sink):
    """Adds tags to the sidecars of pictures; the pictures are never opened for writing.

    Raises WriteFailed without lxml.
    """

    def __init__(self, *, name: str | None, prefix: str, language: str):
        self._name = name
        self._prefix = prefix
        self._language = language
        try:
            import lxml.etree  # noqa: F401
        except ImportError as error:
            raise WriteFailed(f"--xmp needs lxml: {installing('cli')}") from error

    def has(self, source: Source) -> bool:
        """Whether a tag with the prefix is in the sidecar."""
        return not isinstance(source, Url) and self._read(self._path(source)).has(self._prefix)

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Add the tags that the sidecar does not have; it is not touched if there are none."""
        path, document, missing = self._with(source, tags)
        if missing:
            self._write(path, document)

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """The sidecar, and the tags that it does not have."""
        path, _, missing = self._with(source, tags)
        return f"{path}: {'add ' + ', '.join(missing) if missing else 'nothing to add'}"

    def remove(self, source: Source, *, dry_run: bool) -> str | None:
        """Take out of a sidecar what `add` put in, and describe it; None if nothing was there.

        A sidecar that `ram-tag` began, and that has nothing else in it, is deleted.
        """
        path = self._path(folder_of(source))
        document = self._read(path)
        removed = document.remove(self._prefix)
        if not removed:
            return None
        is_bare = document.is_bare()
        if is_bare and not dry_run:
            with explained(path):
                path.unlink()
        elif not dry_run:
            self._write(path, document)
        return f"{path}: {'delete' if is_bare else 'remove ' + ', '.join(removed)}"

    def _path(self, picture: Path) -> Path:
        """The sidecar's path: the one that exists, unless the user has chosen a name."""
        exact = picture.with_name(picture.name + SUFFIX)
        plain = picture.with_suffix(SUFFIX)
        wanted = {NAMES[0]: [exact], NAMES[1]: [plain], None: [exact, plain]}[self._name]
        endings = (SUFFIX, SUFFIX.upper())
        candidates = [path.with_suffix(ending) for path in wanted for ending in endings]
        return next((path for path in candidates if path.exists()), candidates[0])

    def _with(self, source: Source, tags: list[Tag]) -> tuple[Path, Document, list[str]]:
        path = self._path(folder_of(source))
        document = self._read(path)
        try:
            return path, document, document.add(keywords(tags, self._language), self._prefix)
        except ValueError as error:  # a control character of a label
            raise WriteFailed(f"{path}: {error}") from error

    @staticmethod
    def _read(path: Path) -> Document:
        from .xmp import Document

        try:
            with explained(path):
                return Document(path.read_bytes() if path.exists() else None)
        except ValueError as error:
            raise WriteFailed(f"{path}: {error}; it was left as it is") from error

    @staticmethod
    def _write(path: Path, document: Document) -> None:
        with explained(path), replacing(path) as new:
            new.write_bytes(document.to_bytes())
