"""Images from webdataset shards: .tar files in which a sample's files follow each other."""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..files import IMAGE_SUFFIXES
from .errors import reason_of
from .item import Item, Members
from .places import is_address, open_binary

CHUNK = 1 << 20  # bytes of a stream that are read at once
DAMAGED = (tarfile.TarError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, ValueError)


@dataclass
class _Sample:
    key: str
    position: int
    wanted: bool
    members: Members = field(default_factory=list)


def read_tar(
    place: str, source: str, wanted: Callable[[int], bool], *, keep_members: bool
) -> Iterator[Item | int]:
    """Yield the samples of a shard at the positions that are wanted, and at the end their number.

    What follows damage is lost: an item whose error names it stands for it. Raises OSError, or what
    the address's file system does, if the file cannot be read.

    Args:
        place: of the shard; if it is compressed, it is read as a stream.
        source: its name in the rows.
        wanted: whether the sample at a position is to be read.
        keep_members: whether items get all files of their sample.
    """
    position = 0
    with open_binary(place) as file:
        try:
            for sample in _samples(file, is_address(place), wanted, keep_members):
                position = sample.position + 1
                if sample.wanted:
                    yield _item(sample, source, keep_members)
        except DAMAGED as error:
            reason = f"the shard is damaged after {position} images: {reason_of(error)}"
            if wanted(position):
                yield Item(position, f"#{position}", source, error=reason)
            position += 1
    yield position


def split_name(name: str) -> tuple[str, str]:
    """A member's sample and the rest of its name, as webdataset splits it: at the first dot."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return folder + slash + key, suffix.lower()


def is_image(suffix: str) -> bool:
    """Whether a member is an image, by the end of its name."""
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _samples(
    file: object, as_stream: bool, wanted: Callable[[int], bool], keep_members: bool
) -> Iterator[_Sample]:
    mode = "r|*" if as_stream else "r:*"
    sample: _Sample | None = None
    seen: dict[str, int] = {}
    with tarfile.open(fileobj=file, mode=mode, bufsize=CHUNK) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members = []  # it would keep those of the whole archive
            name = member.name.encode("utf-8", "surrogateescape").decode(
                "utf-8", "backslashreplace"
            )
            key, suffix = split_name(name)
            if not (member.isfile() and key and suffix):
                continue
            if sample is None or sample.key != key:
                if sample:
                    yield _numbered(sample, seen)
                position = sample.position + 1 if sample else 0
                sample = _Sample(key, position, wanted(position))
            first_image = is_image(suffix) and not any(is_image(name) for name, _ in sample.members)
            if sample.wanted and (keep_members or first_image):
                content = archive.extractfile(member)
                data = content.read() if content else b""
                if len(data) < member.size:
                    raise EOFError("it ends within a file")
                sample.members.append((suffix, data))
    if sample:
        yield _numbered(sample, seen)


def _numbered(sample: _Sample, seen: dict[str, int]) -> _Sample:
    """Give a key that the shard had before a number: keys are unique within a shard."""
    seen[sample.key] = count = seen.get(sample.key, 0) + 1
    if count == 1:
        return sample
    return _Sample(f"{sample.key}#{count}", sample.position, sample.wanted, sample.members)


def _item(sample: _Sample, source: str, keep_members: bool) -> Item:
    image = next((data for suffix, data in sample.members if is_image(suffix)), None)
    return Item(
        sample.position,
        sample.key,
        source,
        image=image,
        error=None if image is not None else "no image in this sample",
        members=sample.members if keep_members else [],
    )
