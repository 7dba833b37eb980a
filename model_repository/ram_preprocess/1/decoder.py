"""A process beside the model's that decodes what could take long, much memory, or crash.

A deadline cannot interrupt a decoder, which is C: only its process can be ended. The kernel does
that at a limit of processor time, set per image; the next image gets a new process. A limit of
memory turns what would take more into an error, and what libraries write to stderr is dropped.
Ordinary JPEGs, whose cost is known from their structure, are decoded in the model's own process.

Run as a program (`-m 1.decoder` in the model's folder), this file is that process.
"""

import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .encoded_image import ImageError, ImageLimits, Structure, unwrap
from .preprocess import decode, worst_bytes
from .structure import examine

WALL_SECONDS = 120  # for a process that was stopped, or machines that swap
START_SECONDS = 300  # its imports run with the lowest priority, too
# JPEGs up to this many pixels times scans, a few tenths of a second, need no process.
QUICK_PIXELS = 40_000_000
HEADER = struct.Struct("=?Q")  # whether what follows is the answer, or an error; its length
READY = b"ready"


@dataclass(frozen=True)
class Allowance:
    """What decoding one image may take: several times what the largest honest ones need.

    Attributes:
        memory: bytes beyond what the process takes when it starts.
        seconds: of processor time.
        seconds_per_megapixel: in addition, for each million pixels of its canvas.
    """

    memory: int
    seconds: float = 1.0
    seconds_per_megapixel: float = 0.08

    def seconds_for(self, structure: Structure) -> float:
        """Return the processor time that decoding an image may take."""
        return self.seconds + self.seconds_per_megapixel * structure.pixels / 1e6


class Decoder:
    """Preprocesses images, each within a limit of time and memory."""

    def __init__(
        self, image_size: int, limits: ImageLimits, allowance: Allowance | None = None
    ) -> None:
        """Start the process.

        Args:
            image_size: side of the square, in pixels.
            limits: the largest image to accept.
            allowance: what decoding one may take; by default enough for any within the limits.

        Raises:
            RuntimeError: it does not start.
        """
        self._image_size, self._limits = image_size, limits
        self._allowance = allowance or Allowance(worst_bytes(limits))
        self._start()

    def preprocess(self, data: bytes) -> np.ndarray:
        """Make the encoder's pixels of an image, (image_size, image_size, 3) uint8.

        Raises:
            ImageError: as `preprocess.preprocess`, or it takes too long.
            RuntimeError: the process does not answer.
        """
        encoded = unwrap(data, self._limits)
        if encoded.startswith(b"\xff\xd8"):
            structure = examine(encoded, self._limits)
            if structure.pixels * structure.scans <= QUICK_PIXELS:
                return decode(structure, self._image_size)
        for _ in range(2):  # the process may have been killed, by whomever, and not by the image
            try:
                return self.ask(encoded)
            except TimeoutError as error:
                self._end()
                self._start()
                raise RuntimeError(f"not decoded within {WALL_SECONDS} s") from error
            except (OSError, EOFError):  # it has ended, or did not start the last time
                status = self._end()
                self._start()
                if status == -signal.SIGPROF:
                    allowed = self._allowance
                    raise ImageError(
                        f"it takes longer to decode than {allowed.seconds:g} s plus "
                        f"{allowed.seconds_per_megapixel:g} s per megapixel; save it again, "
                        "for example as PNG"
                    ) from None
        raise ImageError("decoding it crashes the decoder; save it again, for example as PNG")

    @property
    def process_id(self) -> int:
        """The process that is there now."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._end()

    def ask(self, encoded: bytes) -> np.ndarray:
        """Have the process decode an image, once.

        Raises:
            ImageError: it cannot be used.
            EOFError, OSError: the process has ended.
        """
        send(self._socket, True, encoded)
        answered, payload = receive(self._socket)
        if not answered:
            raise ImageError(payload.decode())
        size = self._image_size
        return np.frombuffer(payload, np.uint8).reshape(size, size, 3)

    def _start(self) -> None:
        own, other = socket.socketpair()
        # The version's folder is a package, and its parent the place to find it.
        folder = Path(__file__).absolute().parent
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder.parent), *filter(None, sys.path)]),
            **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
        }
        settings = json.dumps([asdict(self._limits), asdict(self._allowance), self._image_size])
        program = [_python(), "-P", "-m", f"{folder.name}.decoder"]
        self._socket = own
        self._process = subprocess.Popen(
            [*program, str(other.fileno()), settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[other.fileno()],
            env=environment,
        )
        other.close()
        own.settimeout(START_SECONDS)
        try:
            receive(own)
        except (OSError, EOFError) as error:
            self._end()
            raise RuntimeError("the process that decodes does not start") from error
        own.settimeout(WALL_SECONDS)

    def _end(self) -> int:
        """Return the status that the process ended with."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):  # one that ends by itself keeps its status
            return self._process.wait(1)
        self._process.kill()
        return self._process.wait()


def _python() -> str:
    """Return the interpreter; inside Triton's stub `sys.executable` need not be one."""
    if sys.executable and Path(sys.executable).name.startswith("python"):
        return sys.executable
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3")
    return next(filter(None, map(shutil.which, names)), "python3")


def send(connection: socket.socket, answered: bool, payload: bytes) -> None:
    """Send a message: its header and its payload."""
    connection.sendall(HEADER.pack(answered, len(payload)))
    connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[bool, bytearray]:
    """Return the next message.

    Raises:
        EOFError: the other side has ended.
        TimeoutError: nothing came within the connection's timeout.
    """
    answered, length = HEADER.unpack(_receive(connection, HEADER.size))
    return answered, _receive(connection, length)


def _receive(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        count = connection.recv_into(rest)
        if count == 0:
            raise EOFError
        rest = rest[count:]
    return data


def limit_memory(extra: int) -> None:
    """Let this process take `extra` bytes more than it has."""
    status = Path("/proc/self/status").read_text()
    (now,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (now * 1024 + extra,) * 2)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Have the kernel end this process after so much more processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def serve(
    connection: socket.socket, image_size: int, limits: ImageLimits, allowance: Allowance
) -> None:
    """Answer each image with its pixels, or with what is wrong with it."""
    with suppress(EOFError, ConnectionError):
        while True:
            _, encoded = receive(connection)
            try:
                with deadline(allowance.seconds):
                    structure = examine(bytes(encoded), limits)
                with deadline(allowance.seconds_for(structure)):
                    pixels = decode(structure, image_size)
            except ImageError as error:
                send(connection, False, str(error).encode())
            except MemoryError:
                send(connection, False, b"there is not enough memory to decode it")
            else:
                send(connection, True, pixels.tobytes())


def main() -> None:
    """Be the process: the arguments are a socket, and the settings as JSON."""
    descriptor, settings = sys.argv[1:]
    limits, allowance, image_size = json.loads(settings)
    allowed = Allowance(**allowance)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the model's process ends this one
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limit_memory(allowed.memory)
    # libtiff writes a line per bad row of a damaged picture.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection = socket.socket(fileno=int(descriptor))
    send(connection, True, READY)
    serve(connection, image_size, ImageLimits(**limits), allowed)


if __name__ == "__main__":
    main()
