"""A model repository on disk: its static files, what the build adds, and the manifest."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ram_triton.errors import RepositoryError
from ram_triton.files import sha256, write_atomically
from ram_triton.repository.layout import (
    DEFAULT_REPOSITORY,
    DERIVED_FILES,
    MANIFEST,
    MODELS,
    STAGING_PREFIX,
    STATIC_FILES,
)

LOCK_ATTEMPTS = 100


@dataclass(frozen=True)
class Repository:
    """A folder that tritonserver can be pointed at, once a model was installed into it."""

    root: Path

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yield an empty folder on the same file system, for `install`, and remove it afterwards.

        A second build of the same repository is refused meanwhile.

        Raises:
            RepositoryError: another build is running, or the folder cannot be written.
        """
        # Inside a model's folder: anything beside the models stops the server.
        home = self.root / "ram"
        try:
            with _locked(home):
                try:
                    for left_over in home.glob(f"{STAGING_PREFIX}*"):
                        shutil.rmtree(left_over)
                    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=home) as staging:
                        yield Path(staging)
                finally:
                    for folder in (home, self.root):
                        with contextlib.suppress(OSError):  # a folder that is not empty stays
                            folder.rmdir()
        except OSError as error:
            raise RepositoryError(f"{self.root}: cannot be written ({error.strerror})") from error

    def install(self, staging: Path, manifest: dict[str, Any]) -> None:
        """Move all staged files to their places, and write the manifest with their hashes last.

        A repository with graphs and without a manifest is one whose build was interrupted.
        """
        files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        hashes = {str(file): sha256(staging / file) for file in files}
        (staging / MANIFEST.name).write_text(
            json.dumps(manifest | {"artefacts": hashes}, indent=2, ensure_ascii=False) + "\n"
        )
        (self.root / MANIFEST).unlink(missing_ok=True)
        for pattern in DERIVED_FILES:
            for file in self.root.glob(pattern):
                file.unlink()
        self._copy_static_files()
        for file in files:
            (staging / file).replace(self.root / file)
        (staging / MANIFEST.name).replace(self.root / MANIFEST)

    def manifest(self) -> dict[str, Any] | None:
        """Return what `install` wrote last; None if no model is installed.

        Raises:
            RepositoryError: it cannot be read.
        """
        path = self.root / MANIFEST
        if not path.is_file():
            return None
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            manifest = None
        if not isinstance(manifest, dict):
            raise RepositoryError(f"{path}: is damaged: run 'make model' again")
        return manifest

    def require_manifest(self) -> dict[str, Any]:
        """Return what `install` wrote last.

        Raises:
            RepositoryError: it cannot be read, or no model is installed.
        """
        manifest = self.manifest()
        if manifest is None:
            raise RepositoryError(
                f"{self.root}: contains no model: run 'make model' or 'make demo' first"
            )
        return manifest

    def _copy_static_files(self) -> None:
        """Bring configs and Python models into a repository other than the project's own."""
        if self.root.resolve() == DEFAULT_REPOSITORY:
            return
        for pattern in STATIC_FILES:
            for source in sorted(DEFAULT_REPOSITORY.glob(pattern)):
                name = source.relative_to(DEFAULT_REPOSITORY)
                # The default repository's own text encoder belongs to its labels.
                if name.parts[0] not in MODELS or MODELS[name.parts[0]].optional:
                    continue
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                # A config that is there may have been changed by its owner.
                if target.suffix != ".pbtxt" or not target.exists():
                    write_atomically(target, partial(shutil.copyfile, source))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold its lock, which ends with this process at the latest."""
    try:
        descriptor = _lock(folder)
    except BlockingIOError as error:
        raise RepositoryError(f"{folder.parent}: another build is writing to it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Make a folder and return a descriptor that locks it, although another build may remove it.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the folder cannot be made.
    """
    for _ in range(LOCK_ATTEMPTS - 1):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            return _lock_once(folder)
    return _lock_once(folder)


def _lock_once(folder: Path) -> int:
    with contextlib.ExitStack() as unless_locked:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        unless_locked.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        unless_locked.pop_all()
        return descriptor
