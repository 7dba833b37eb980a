"""Caption files, `photo.txt` beside `photo.jpg`, as trainers of diffusion models read them."""

from pathlib import Path

from ..files import Source
from ..tag import Tag
from .sink import Sink, WriteFailed, explained, folder_of, keywords, replacing


class Captions(Sink):
    """One line of tags per picture, replaced or, with `append`, added to.

    A picture without tags gets an empty file, since trainers expect one per picture.
    """

    def __init__(self, *, suffix: str, separator: str, append: bool, language: str):
        self._suffix = suffix
        self._separator = separator
        self._append = append
        self._language = language
        self._owners: dict[Path, Source] = {}

    def has(self, source: Source) -> bool:
        """Whether there is a caption, whoever wrote it."""
        return self._path(source).exists()

    def add(self, source: Source, tags: list[Tag]) -> None:
        """Write the caption."""
        path, caption = self._caption(source, tags)
        if self._text(path) != caption:
            with explained(path), replacing(path) as new:
                new.write_bytes(caption.encode("utf-8", "backslashreplace"))

    def preview(self, source: Source, tags: list[Tag]) -> str:
        """The file and its line."""
        path, caption = self._caption(source, tags)
        return f"{path}: {caption.strip() or 'empty'}"

    def _path(self, source: Source) -> Path:
        return folder_of(source).with_suffix(self._suffix)

    def _caption(self, source: Source, tags: list[Tag]) -> tuple[Path, str]:
        path = self._path(source)
        if path == source:
            raise WriteFailed(f"{source}: its caption would have the same name: see --txt-suffix")
        if (owner := self._owners.setdefault(path, source)) != source:
            raise WriteFailed(f"{source}: {path.name} is the caption of {owner.name} already")
        names = keywords(tags, self._language)
        if self._append:
            sign = self._separator.strip() or self._separator
            before = [name.strip() for name in (self._text(path) or "").split(sign)]
            names = list(dict.fromkeys([name for name in before if name] + names))
        return path, self._separator.join(names) + "\n" * bool(names)

    @staticmethod
    def _text(path: Path) -> str | None:
        with explained(path):
            try:
                return path.read_text(encoding="utf-8-sig")
            except FileNotFoundError:
                return None
            except ValueError as error:
                raise WriteFailed(f"{path}: is not UTF-8, and was left as it is") from error
