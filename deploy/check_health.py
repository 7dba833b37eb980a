"""Tag one picture over HTTP: a server whose port is open can still be unable to infer.

Needs only Python. Exit status 0 if the answer is a tag, else 1 with one line of reason.
"""

import argparse
import base64
import http.client
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "build" / "demo" / "images" / "apple.png"
NAMES = ("tags", "scores", "count")
SHOWN = 200  # characters of a server's message


class HealthError(RuntimeError):
    """The server does not tag; the message is the reason, in one line."""


def tag(url: str, picture: Path, timeout: float) -> tuple[str, float]:
    """Ask for the most probable tag of a picture, whatever its score.

    Args:
        url: the server's, such as `http://127.0.0.1:8000`.
        picture: an image file.
        timeout: seconds.

    Returns:
        The tag's English name and its score.

    Raises:
        HealthError: there is no server, or its answer has no tag.
    """
    image = base64.b64encode(picture.read_bytes()).decode()
    request = {
        "inputs": [
            {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [image]},
            {"name": "threshold", "shape": [1, 1], "datatype": "FP32", "data": [0.0]},
            {"name": "top_k", "shape": [1, 1], "datatype": "INT32", "data": [1]},
        ],
        "outputs": [{"name": name} for name in NAMES],
    }
    body = json.dumps(request).encode()
    try:
        with urllib.request.urlopen(f"{url}/v2/models/ram/infer", body, timeout) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        text = " ".join(error.read(SHOWN).decode(errors="replace").split())
        raise HealthError(f"the server answers {error.code}: {text}") from error
    except (OSError, ValueError) as error:
        raise HealthError(getattr(error, "reason", None) or str(error)) from error
    except http.client.HTTPException as error:  # no HTTP, or no URL
        reason = " ".join(str(error).split())
        raise HealthError(f"{type(error).__name__}: {reason}") from error
    return read_answer(answer)


def read_answer(answer: object) -> tuple[str, float]:
    """Return the one tag of an answer.

    Raises:
        HealthError: it has none.
    """
    try:
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        ((name,), (score,), (count,)) = (outputs[name] for name in NAMES)
        if count == 1 and isinstance(name, str) and name and 0 < float(score) <= 1:
            return name, float(score)
    except (KeyError, TypeError, ValueError):
        pass
    raise HealthError(f"the answer contains no tag: {json.dumps(answer)[:SHOWN]}")


def main() -> int:
    """Ask once; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8000", help="the server's HTTP endpoint")
    add("--image", type=Path, default=PICTURE, metavar="FILE", help="default: %(default)s")
    add("--timeout", type=float, default=10, metavar="SECONDS")
    arguments = parser.parse_args()
    try:
        name, score = tag(arguments.url.rstrip("/"), arguments.image, arguments.timeout)
    except HealthError as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"unhealthy: {arguments.image}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"healthy: {name} {score:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
