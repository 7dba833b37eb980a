"""The image files of the command line: which files a path means."""

from pathlib import Path

from .errors import ImageUnreadable

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def find_images(path: Path, *, recursive: bool) -> list[Path]:
    """The images in a folder, by suffix and sorted by name, or the file itself, whatever it is.

    Raises ImageUnreadable for a folder that cannot be listed or has no images. A missing file is
    not noticed here, but when it is read.
    """
    try:
        if not path.is_dir():
            return [path]
        images = [
            candidate
            for candidate in sorted(path.rglob("*") if recursive else path.iterdir())
            if candidate.suffix.lower() in IMAGE_SUFFIXES and candidate.is_file()
        ]
    except OSError as error:
        raise ImageUnreadable(f"{path}: {error.strerror}") from error
    if not images:
        hint = "" if recursive else " (--recursive also looks into its subfolders)"
        raise ImageUnreadable(f"{path}: no images in this folder{hint}")
    return images
