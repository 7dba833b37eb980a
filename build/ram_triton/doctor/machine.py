"""This machine: its TensorRT, the backend's Python and its packages, tritonserver, ports."""

import ctypes
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ram_triton.check_system import find_libpython
from ram_triton.doctor.report import Finding, error, fine, not_needed, warning
from ram_triton.engines.tensorrt import load_tensorrt
from ram_triton.errors import EngineError
from ram_triton.repository.layout import CPU
from ram_triton.server import Ports
from ram_triton.server.installation import FLAWS, NEWEST, OLDEST, WHEEL, flaws, image_release

TENSORRT_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
OLDEST_PILLOW = (10, 1)  # the first with Image.has_transparency_data
CODECS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF", "avif": "AVIF"}
PROBE = """
import importlib.util, json, sys
seen = {"python": sys.version.split()[0]}
try:
    import numpy
    seen["numpy"] = numpy.__version__
except ImportError as error:
    seen["numpy_error"] = str(error)
try:
    import PIL
    from PIL import features
    seen["pillow"] = PIL.__version__
    seen["codecs"] = [name for name in sys.argv[1:] if features.check(name)]
except ImportError as error:
    seen["pillow_error"] = str(error)
seen["openvino"] = importlib.util.find_spec("openvino") is not None
print(json.dumps(seen))
"""


def tensorrt_version() -> str | None:
    """Return TensorRT's version: all of it from Python, or the part that its library reports."""
    try:
        return str(load_tensorrt().__version__)
    except (EngineError, AttributeError):
        pass
    for name in TENSORRT_LIBRARIES:
        try:
            number = ctypes.CDLL(name).getInferLibVersion()
        except (OSError, AttributeError):
            continue
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def check_ports(ports: Ports) -> Iterator[Finding]:
    """Check whether the server's ports are free."""
    numbers, taken = vars(ports), ports.taken()
    for name, number in numbers.items():
        if number in taken:
            yield error(
                "ports",
                f"{number} ({name}) is taken",
                f"stop what listens there ('ss -ltnp sport = :{number}' shows it), or give the "
                f"server another: --{name}-port",
            )
    if not taken:
        yield fine("ports", f"{', '.join(map(str, numbers.values()))} are free")


def backend_python(profile: str) -> str | None:
    """Return the Python whose packages the models get: the first on PATH.

    `make serve` puts its own environment's there.
    """
    return sys.executable if profile == CPU else shutil.which("python3")


def check_python(profile: str, python: str | None) -> Iterator[Finding]:
    """Ask `python` for the versions of what the Python models import."""
    if python is None:
        yield error("Python", "python3 is not on PATH", "install Python 3, or extend PATH")
        return
    done = subprocess.run(
        [python, "-c", PROBE, *CODECS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield error("Python", f"{python} does not run: {last}", "fix it, or put another on PATH")
        return
    seen = json.loads(done.stdout)
    yield fine("Python", f"{seen['python']} at {python}")
    yield _numpy(seen, python)
    yield _pillow(seen, python)
    if profile == CPU and not seen["openvino"]:
        yield error("openvino", f"not installed for {python}", "run 'make setup'")


def _numpy(seen: dict[str, Any], python: str) -> Finding:
    install = f"{python} -m pip install 'numpy<2'"
    if "numpy" not in seen:
        return error("numpy", f"cannot be imported: {seen['numpy_error']}", install)
    if int(seen["numpy"].split(".")[0]) >= 2:
        text = f"{seen['numpy']}: Triton's Python backend breaks on strings with numpy 2"
        return error("numpy", text, install)
    return fine("numpy", seen["numpy"])


def _pillow(seen: dict[str, Any], python: str) -> Finding:
    oldest = ".".join(map(str, OLDEST_PILLOW))
    install = f"{python} -m pip install 'pillow>={oldest}'"
    if "pillow" not in seen:
        return error("Pillow", f"cannot be imported: {seen['pillow_error']}", install)
    version = tuple(int(part) for part in seen["pillow"].split(".")[:2])
    if version < OLDEST_PILLOW:
        text = f"{seen['pillow']} is too old for the preprocessor"
        return error("Pillow", text, install)
    lacking = [name for codec, name in CODECS.items() if codec not in seen["codecs"]]
    if lacking:
        text = f"{seen['pillow']} cannot decode {', '.join(lacking)}"
        return warning("Pillow", text, f"{install} --force-reinstall, from a wheel")
    return fine("Pillow", seen["pillow"])


def check_server(profile: str) -> Iterator[Finding]:
    """Look for what `make serve` needs (tritonserver's wheel, a libpython), and old releases."""
    release = image_release()
    if release is not None:
        yield not_needed("libpython", "the serving image's stub has its own")
        yield _release(release)
        return
    if profile != CPU:
        yield not_needed("libpython", "the serving image's stub has its own")
        yield not_needed("tritonserver", f"this is not NVIDIA's image; serve by {OLDEST} or newer")
        return
    libpython = find_libpython()
    if libpython is None:
        version = "{}.{}".format(*sys.version_info[:2])
        package = f"run 'apt-get install libpython{version}'"
        yield error("libpython", f"libpython{version}.so.1.0 is missing", package)
    else:
        yield fine("libpython", libpython)
    if importlib.util.find_spec("pytriton") is None:
        yield error("tritonserver", "the wheel nvidia-pytriton is missing", "run 'make setup'")
    else:
        text = f"{WHEEL} of the wheel nvidia-pytriton: for loopback only, see SECURITY.md"
        yield fine("tritonserver", text)


def _release(release: str) -> Finding:
    known = flaws(release)
    if not known:
        return fine("tritonserver", f"{release}, of NVIDIA's image")
    judge = error if FLAWS[OLDEST] in known else warning
    remedy = f"build the image FROM tritonserver:{NEWEST}-py3, as deploy/Dockerfile does"
    return judge("tritonserver", f"{release} has {'; '.join(known)}", remedy)
