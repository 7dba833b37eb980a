"""The Python that Triton's Python backend runs, and the packages that the models import."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

from ram_triton.check_system import find_libpython
from ram_triton.doctor.finding import Finding, error, fine, not_needed, warning
from ram_triton.repository.layout import CPU

OLDEST_PILLOW = (10, 1)  # the first with Image.has_transparency_data
CODECS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF"}
PROBE = """
import importlib.util, json, sys
told = {"python": sys.version.split()[0]}
try:
    import numpy
    told["numpy"] = numpy.__version__
except ImportError as error:
    told["numpy_error"] = str(error)
try:
    import PIL
    from PIL import features
    told["pillow"] = PIL.__version__
    told["codecs"] = [name for name in sys.argv[1:] if features.check(name)]
except ImportError as error:
    told["pillow_error"] = str(error)
told["openvino"] = importlib.util.find_spec("openvino") is not None
print(json.dumps(told))
"""


def backend_python(profile: str) -> str | None:
    """Return the Python whose packages the models get: the stub takes the first on PATH.

    `make serve` puts its own environment's there.
    """
    return sys.executable if profile == CPU else shutil.which("python3")


def check_python(profile: str, python: str | None) -> Iterator[Finding]:
    """Ask `python` for the versions of what the Python models import."""
    if python is None:
        yield error("Python", "there is no python3 on PATH", "install Python 3, or extend PATH")
        return
    done = subprocess.run(
        [python, "-c", PROBE, *CODECS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        yield error("Python", f"{python} does not run: {last}", "mend it, or put another on PATH")
        return
    told = json.loads(done.stdout)
    yield fine("Python", f"{told['python']} at {python}")
    yield _numpy(told, python)
    yield _pillow(told, python)
    if profile == CPU and not told["openvino"]:
        yield error("openvino", f"not installed for {python}", "run 'make setup'")


def check_server(profile: str) -> Iterator[Finding]:
    """Look for what `make serve` needs: tritonserver's wheel and a libpython for its stub."""
    if profile != CPU:
        yield not_needed("libpython", "the serving image's stub brings its own")
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
        yield fine("tritonserver", "from the wheel nvidia-pytriton")


def _numpy(told: dict, python: str) -> Finding:
    install = f"{python} -m pip install 'numpy<2'"
    if "numpy" not in told:
        return error("numpy", f"cannot be imported: {told['numpy_error']}", install)
    if int(told["numpy"].split(".")[0]) >= 2:
        text = f"{told['numpy']}: Triton's Python backend breaks on strings with numpy 2"
        return error("numpy", text, install)
    return fine("numpy", told["numpy"])


def _pillow(told: dict, python: str) -> Finding:
    oldest = ".".join(map(str, OLDEST_PILLOW))
    install = f"{python} -m pip install 'pillow>={oldest}'"
    if "pillow" not in told:
        return error("Pillow", f"cannot be imported: {told['pillow_error']}", install)
    version = tuple(int(part) for part in told["pillow"].split(".")[:2])
    if version < OLDEST_PILLOW:
        text = f"{told['pillow']} is too old for the preprocessor"
        return error("Pillow", text, install)
    lacking = [name for codec, name in CODECS.items() if codec not in told["codecs"]]
    if lacking:
        text = f"{told['pillow']} cannot decode {', '.join(lacking)}"
        return warning("Pillow", text, f"{install} --force-reinstall, from a wheel")
    return fine("Pillow", told["pillow"])
