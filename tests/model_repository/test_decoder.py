"""The process that decodes answers as the model would; no image outlives its allowance."""

import os
import select
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from ram_triton.server_code import ImageError, decoder, image_limits, preprocess, preprocessing
from support import PATIENCE

SIZE = 32
LIMITS = image_limits()
MEGABYTE = 2**20
Allowance, Decoder = decoder.Allowance, decoder.Decoder


@pytest.fixture(scope="module")
def decoding():
    """A decoder as the server has it."""
    started = Decoder(SIZE, LIMITS)
    yield started
    started.close()


@pytest.fixture
def strict():
    """Makes decoders of a smaller allowance, and ends them."""
    started = []

    def make(**allowance):
        started.append(Decoder(SIZE, LIMITS, Allowance(**{"memory": 2**30, **allowance})))
        return started[-1]

    yield make
    for one in started:
        one.close()


def enormous(encode) -> bytes:
    """A translucent PNG of 60 megapixels, which takes a hundred times as long as a photo."""
    return encode(Image.new("RGBA", (10_000, 6_000), (255, 0, 0, 99)), "PNG", compress_level=1)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_what_the_process_answers_is_what_the_function_returns(decoding, name, photo, encode):
    encoded = encode(photo, name)
    np.testing.assert_array_equal(decoding.preprocess(encoded), preprocess(encoded, SIZE))


def test_an_error_is_the_functions_error(decoding, photo, encode):
    for data in (b"", b"no image", encode(photo)[:500], encode(photo, "TIFF")[:500]):
        with pytest.raises(ImageError) as expected:
            preprocess(data, SIZE)
        with pytest.raises(ImageError) as refused:
            decoding.preprocess(data)
        assert str(refused.value) == str(expected.value)


def test_an_ordinary_jpeg_does_not_need_the_process(decoding, photo, encode):
    os.kill(decoding.process_id, signal.SIGSTOP)
    try:
        assert decoding.preprocess(encode(photo, "JPEG")).shape == (SIZE, SIZE, 3)
    finally:
        os.kill(decoding.process_id, signal.SIGCONT)


def test_an_image_that_takes_too_long_is_refused_and_its_neighbours_are_not(strict, photo, encode):
    hurried = strict(seconds=0.1, seconds_per_megapixel=0)
    first = hurried.process_id
    before, slow, after = encode(photo), enormous(encode), encode(photo.rotate(180))
    np.testing.assert_array_equal(hurried.preprocess(before), preprocess(before, SIZE))
    with pytest.raises(ImageError, match=r"^it takes longer to decode than 0\.1 s plus 0 s per"):
        hurried.preprocess(slow)
    np.testing.assert_array_equal(hurried.preprocess(after), preprocess(after, SIZE))
    assert hurried.process_id != first


def test_a_batch_loses_no_more_than_the_image_that_takes_too_long(strict, photo, encode):
    hurried = strict(seconds=0.1, seconds_per_megapixel=0)
    images = [encode(photo), enormous(encode)]
    with pytest.raises(ImageError, match=r"^image\[1\]: it takes longer"):
        preprocessing.preprocess_batch(images, SIZE, hurried.preprocess)


def test_an_image_that_takes_too_much_memory_is_refused(strict, photo, encode):
    tight = strict(memory=64 * MEGABYTE, seconds=60)
    with pytest.raises(ImageError, match="not enough memory"):
        tight.preprocess(enormous(encode))
    assert tight.preprocess(encode(photo)).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_was_killed_is_replaced_without_losing_an_image(
    decoding, sent, photo, encode
):
    encoded = encode(photo)
    os.kill(decoding.process_id, sent)
    np.testing.assert_array_equal(decoding.preprocess(encoded), preprocess(encoded, SIZE))


def test_a_process_that_did_not_start_is_started_for_the_next_image(
    strict, photo, encode, monkeypatch, tmp_path
):
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    started = strict()
    with monkeypatch.context() as replaced:
        replaced.setattr(decoder, "START_SECONDS", 0.1)
        replaced.setattr(decoder, "_python", lambda: str(silent))
        os.kill(started.process_id, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="does not start"):
            started.preprocess(encode(photo))
    assert started.preprocess(encode(photo)).shape == (SIZE, SIZE, 3)


def test_what_libtiff_writes_of_a_damaged_picture_is_not_written(decoding, capfd):
    bits = zlib.compress(np.random.default_rng(0).bytes(4000), 0)
    tags = {256: 800, 257: 800, 258: 1, 259: 3, 262: 1, 273: 0, 277: 1, 278: 800, 279: len(bits)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    faulty = b"II*\0" + directory + bits
    with suppress(ImageError):
        preprocess(faulty, SIZE)
    assert capfd.readouterr().err.count("\n") > 10, "libtiff is content: the test shows nothing"
    with suppress(ImageError):
        decoding.preprocess(faulty)
    assert capfd.readouterr() == ("", "")


def test_the_process_ends_with_its_model():
    """With the model's process killed there is no one who could end it."""
    source = f"""
import os, signal
from ram_triton.server_code import decoder, image_limits
print(decoder.Decoder({SIZE}, image_limits()).process_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Its standard error is the process's too: it ends if both are gone.
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=PATIENCE)
    try:
        process = os.pidfd_open(int(ran.stdout))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([process], [], [], 60)
    os.close(process)
    assert ended
