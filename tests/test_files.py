"""Files are whole or not there; what cannot be read or written is named with its reason."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import ram_client.files
import torch
from PIL import Image
from ram_triton.errors import FileError
from ram_triton.files import (
    BLOCK,
    IMAGE_SUFFIXES,
    read_lines,
    require_writable_file,
    require_writable_folder,
    sha256,
    write_atomically,
)
from ram_triton.server_code import encoded_image
from safetensors.torch import save_file


def test_a_text_is_written_into_a_new_folder(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "猫\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "猫\n".encode()


def test_a_file_that_could_not_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        write_atomically(path, fail)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_what_killed_processes_left_of_a_file_is_removed_and_nothing_else(tmp_path):
    with subprocess.Popen(["true"]) as ended:
        pass
    for name in (f".state.{ended.pid}.pth", f".state.{os.getppid()}.pth", ".state.old.pth"):
        (tmp_path / name).touch()
    write_atomically(tmp_path / "state.pth", Path.touch)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(["state.pth", f".state.{os.getppid()}.pth", ".state.old.pth"])


def test_a_written_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    path, plain = tmp_path / "a.safetensors", tmp_path / "plain"
    write_atomically(path, lambda unfinished: save_file({"a": torch.zeros(1)}, unfinished))
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_what_can_be_written_is_made_and_left_empty(tmp_path):
    require_writable_folder(tmp_path / "a" / "b")
    require_writable_file(tmp_path / "c" / "d.json")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]


def test_what_cannot_be_written_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    for check, path, reason in (
        (require_writable_folder, tmp_path / "file" / "a", "Not a directory"),
        (require_writable_folder, tmp_path / "file", "Not a directory"),
        (require_writable_file, tmp_path / "file" / "a.json", "Not a directory"),
        (require_writable_file, tmp_path, "Is a directory"),
    ):
        with pytest.raises(FileError) as caught:
            check(path)
        assert str(caught.value) == f"{path}: cannot be written ({reason})"


def test_lines_have_no_ends_and_no_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffhot dog \r\n\n热狗\u2028\n".encode())
    assert read_lines(tmp_path / "a.txt") == ["hot dog ", "", "热狗\u2028"]


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"cat\n" + "caf\u00e9\n".encode("latin-1"))
    with pytest.raises(FileError, match=r"a\.txt, line 2: is not UTF-8"):
        read_lines(tmp_path / "a.txt")


def test_a_hash_is_that_of_the_whole_file(tmp_path):
    contents = bytes(range(256)) * (BLOCK // 256) + b"end"
    (tmp_path / "a").write_bytes(contents)
    read = []
    assert sha256(tmp_path / "a", read.append) == hashlib.sha256(contents).hexdigest()
    assert read == [BLOCK, 3]


def test_files_of_all_formats_of_the_server_count_as_images_here_and_in_the_client():
    Image.init()
    formats = {Image.EXTENSION[suffix] for suffix in IMAGE_SUFFIXES}
    assert formats == set(encoded_image.FORMATS) - {"HEIF"}  # an option
    assert set(IMAGE_SUFFIXES) == ram_client.files.IMAGE_SUFFIXES
