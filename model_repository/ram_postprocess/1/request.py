"""Requests to the Python models: one answer per request, errors, parameters, and equal names.

Triton gives a model its own folder only, so each model that needs this file, or another model's,
has a symbolic link to it. The server, the build and the tests run this very file; it imports
Triton's module only where a request is answered.
"""

import difflib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")
Tensors = Mapping[str, np.ndarray]  # by name; object arrays of bytes for TYPE_STRING


# What clients may set, for proposals.
INPUTS = ("image", "pixels", "threshold", "top_k", "exclude", "labels", "labels_zh")
# Parameters of the protocols that Triton hands on to the models.
PROTOCOL_PARAMETERS = re.compile(r"triton_\w+|binary_data_output")
PATH = re.compile(r"(?:/[^\s/'\":,]+){2,}")


class RequestError(ValueError):
    """An input cannot be used; the message starts with the input's name."""


class UnavailableError(Exception):
    """The server cannot take the request now; another can, or this one later."""


class CancelledError(Exception):
    """Nobody waits for the answer."""


def spell(name: str) -> str:
    """Return a name as sentences for a text encoder contain it.

    As in RAM's own labels: lower case, `_` is a space, and a full stop at the end is dropped.
    """
    return " ".join(name.replace("_", " ").split()).rstrip(". ").lower()


def fold(name: str) -> str:
    """Return what two names have in common if, and only if, they are the same name.

    Names are the same if they differ only in what `spell` changes, or in case. The result is empty
    if the text is not a name at all.
    """
    return spell(name).casefold()


def read_parameter(model_config: str, name: str, kind: Callable[[str], Value]) -> Value:
    """Read a parameter of a model's config.pbtxt.

    Args:
        model_config: the config as JSON, as Triton hands it to a Python model.
        name: of the parameter.
        kind: makes the value of its text, such as `int`.

    Raises:
        ValueError: it is missing, or is not of this kind; the message names it.
    """
    parameters = json.loads(model_config).get("parameters", {})
    if name not in parameters:
        raise ValueError(f"config.pbtxt: the parameter '{name}' is missing")
    text = parameters[name]["string_value"]
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"config.pbtxt: the parameter '{name}' is '{text}' ({error})") from error


def answer_each(
    requests: Sequence[Any],
    answer: Callable[[dict[str, np.ndarray]], Tensors],
    began: float | None = None,
) -> list:
    """Answer each request on its own: an error fails no other request of the same batch.

    Args:
        requests: Triton's.
        answer: makes a request's outputs of its inputs, both by name. A `RequestError` is the
            client's fault, any other exception the server's; clients get one line of text.
        began: when the batch came, of `time.monotonic`; None if the answers cost nothing, and need
            no look, before each, if anybody still waits for it.
    """
    return [_answer(request, answer, began) for request in requests]


def require_known(parameters: str) -> None:
    """Refuse a request's parameters: all that can be set is an input.

    The generate endpoint makes a parameter of each key that is not an input: a mistyped option
    would be ignored without a word.

    Args:
        parameters: as JSON, as Triton hands them to a Python model.

    Raises:
        RequestError: there is one that is not the protocol's; the message proposes an input.
    """
    for name in json.loads(parameters or "{}"):
        if name in INPUTS:
            raise RequestError(f"{name}: is an input of the model, and not a parameter")
        if not PROTOCOL_PARAMETERS.fullmatch(name):
            close = difflib.get_close_matches(name, INPUTS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RequestError(f"{name[:100]!r}: unknown parameter{hint}")


def describe(error: Exception) -> str:
    """Return one line on a fault of the server, without paths of the machine."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {PATH.sub('…', text)}"


def decode_texts(tensor: str, texts: np.ndarray) -> list[str]:
    """Decode a tensor of UTF-8 bytes.

    Raises:
        RequestError: an element is not UTF-8; the message names it.
    """
    decoded = []
    for index, text in enumerate(texts):
        try:
            decoded.append(text.decode())
        except UnicodeDecodeError as error:
            raise RequestError(f"{tensor}[{index}]: {text[:100]!r} is not UTF-8") from error
    return decoded


def _answer(
    request: Any, answer: Callable[[dict[str, np.ndarray]], Tensors], began: float | None
) -> Any:
    import triton_python_backend_utils as pb_utils  # only Triton's Python process has it

    try:
        if began is not None:
            if request.is_cancelled():
                raise CancelledError("the client has left")
            limit = request.timeout()  # microseconds, 0 for none
            if limit and time.monotonic() - began > limit / 1e6:
                raise UnavailableError("the request's timeout has passed")
        require_known(request.parameters())
        outputs = answer({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
        return pb_utils.InferenceResponse(tensors)
    except RequestError as error:
        failure = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    except CancelledError as error:
        failure = pb_utils.TritonError(str(error), pb_utils.TritonError.CANCELLED)
    except UnavailableError as error:
        failure = pb_utils.TritonError(str(error), pb_utils.TritonError.UNAVAILABLE)
    except Exception as error:  # if one left `execute`, it would fail the whole batch
        pb_utils.Logger.log_error(f"{type(error).__name__}: {' '.join(str(error).split())}")
        failure = pb_utils.TritonError(describe(error), pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse(error=failure)


def ask_model(model: str, inputs: Tensors, output: str) -> np.ndarray:
    """Have another model of the server compute one output, on the CPU.

    Raises:
        RequestError: it refuses the inputs.
        RuntimeError: it fails.
    """
    import triton_python_backend_utils as pb_utils

    response = pb_utils.InferenceRequest(
        model_name=model,
        inputs=[pb_utils.Tensor(name, array) for name, array in inputs.items()],
        requested_output_names=[output],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),
    ).exec()
    if response.has_error():
        error = response.error()
        if error.code() == pb_utils.TritonError.INVALID_ARG:
            raise RequestError(error.message())
        raise RuntimeError(f"{model}: {error.message()}")
    return pb_utils.get_output_tensor_by_name(response, output).as_numpy()
