"""What a supervisor asks its server over HTTP: a tag, its progress, a model loaded again."""

import base64
import http.client
import json
import math
import struct
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ram_triton.errors import ServerError
from ram_triton.server.access import HEADER

RAM, RAM_OPEN, RAM_PIXELS = "ram", "ram_open", "ram_pixels"
SUCCESSES = "nv_inference_request_success"
MARK_BYTES = 24
SHOWN = 200  # characters of a server's message


class Outcome(Enum):
    """How a server takes a request."""

    ANSWERED = "answers"
    REFUSED = "is too busy"  # a queue is full, or it is draining: somebody is there
    FAILED = "fails"
    SILENT = "does not answer"


def picture(mark: bytes = b"-") -> bytes:
    """Return a PNG of 8 x 8 grey pixels with a mark near its beginning.

    A mark of `MARK_BYTES` stands in the picture's base64 text as its own base64 text: 48 bytes are
    before it.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(row, row + 8)) for row in range(8))
    chunks = [(b"IHDR", header), (b"tEXt", b"Source\0" + mark), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in [*chunks, (b"IEND", b"")])


@dataclass(frozen=True)
class Api:
    """A server's HTTP endpoint; connects per request.

    Attributes:
        http: its address, `host:port`.
        metrics: URL of its metrics.
        key: of its restricted APIs.
        label: a tag of its vocabulary, for requests to `ram_open`.
        image_size: side of its model's square, in pixels, for requests to `ram_pixels`.
    """

    http: str
    metrics: str
    key: str = field(repr=False)
    label: str = "-"
    image_size: int = 0

    def ask(
        self, model: str, timeout: float, image: bytes | None = None, maps: bool = False
    ) -> tuple[Outcome, str]:
        """Have a small picture tagged.

        Args:
            model: `RAM`, `RAM_OPEN` or `RAM_PIXELS`.
            timeout: seconds.
            image: another picture. As pixels its text is sent, with the mark at the beginning.
            maps: whether to ask for heat maps too.

        Returns:
            The outcome, and what the server says if it did not answer.
        """
        text = base64.b64encode(image or picture()).decode()
        inputs: list[dict[str, Any]] = []
        raw = b""
        if model == RAM_PIXELS:
            shape = [1, self.image_size, self.image_size, 3]
            raw = text.encode().ljust(math.prod(shape), b"\0")
            inputs.append({"name": "pixels", "shape": shape, "datatype": "UINT8"})
            inputs[0]["parameters"] = {"binary_data_size": len(raw)}
        else:
            inputs.append({"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [text]})
        if model == RAM_OPEN:
            label = {"name": "labels", "shape": [1], "datatype": "BYTES", "data": [self.label]}
            inputs.append(label)
        outputs = ["count", "maps"] if maps else ["count"]
        body = {"inputs": inputs, "outputs": [{"name": name} for name in outputs]}
        try:
            self._post(f"/v2/models/{model}/infer", body, timeout, raw)
        except urllib.error.HTTPError as error:
            reason = _text(error)
            if error.code == http.client.SERVICE_UNAVAILABLE:
                return Outcome.REFUSED, reason
            # What it says is wrong with a request, somebody has looked at.
            answered = error.code == http.client.BAD_REQUEST
            return Outcome.ANSWERED if answered else Outcome.FAILED, reason
        except (OSError, http.client.HTTPException) as error:
            return Outcome.SILENT, str(getattr(error, "reason", error)) or type(error).__name__
        return Outcome.ANSWERED, ""

    def successes(self, timeout: float = 2) -> dict[str, float]:
        """Return how many requests each model has answered; empty if that cannot be read."""
        found: dict[str, float] = {}
        try:
            with urllib.request.urlopen(self.metrics, timeout=timeout) as answer:
                text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return found
        for line in text.splitlines():
            if line.startswith(f"{SUCCESSES}{{"):
                labels, _, number = line.rpartition(" ")
                model = labels.partition('model="')[2].partition('"')[0]
                found[model] = found.get(model, 0) + float(number)
        return found

    def reload(self, model: str, timeout: float) -> float:
        """Load a model again while the server runs; returns the seconds that it took.

        What is loaded meanwhile answers, and the new processes take over when they are ready. A
        parameter that nobody reads makes the config differ, without which Triton keeps the old.

        Raises:
            ServerError: it could not be loaded.
        """
        start = time.monotonic()
        try:
            address = f"http://{self.http}/v2/models/{model}/config"
            with urllib.request.urlopen(address, timeout=timeout) as answer:
                config = json.load(answer)
            loaded = config.setdefault("parameters", {})
            loaded["loaded_again"] = {"string_value": f"{time.time():.3f}"}
            body = {"parameters": {"config": json.dumps(config)}}
            self._post(f"/v2/repository/models/{model}/load", body, timeout)
        except urllib.error.HTTPError as error:
            reason = _text(error)
            raise ServerError(f"{model} could not be loaded again: {reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServerError(f"{model} could not be loaded again: {error}") from error
        return time.monotonic() - start

    def _post(self, path: str, body: Any, timeout: float, raw: bytes = b"") -> None:
        """Send JSON, and the bytes of a tensor that it describes."""
        url, text = f"http://{self.http}{path}", json.dumps(body).encode()
        headers = {HEADER: self.key}
        if raw:
            headers["Inference-Header-Content-Length"] = str(len(text))
        request = urllib.request.Request(url, text + raw, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read()


def _text(error: urllib.error.HTTPError) -> str:
    """Return the beginning of an error's body in one line."""
    try:
        return " ".join(error.read(SHOWN).decode(errors="replace").split())
    except (OSError, http.client.HTTPException):  # the server has gone meanwhile
        return str(error)
