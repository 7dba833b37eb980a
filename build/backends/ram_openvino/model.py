"""The backend of the CPU profile: OpenVINO, with batches of any size.

Placed as `ram_openvino/model.py` into the server's backend directory, with `on_cpu.py` beside it,
it serves every model whose config says `backend: "ram_openvino"`. NVIDIA's own `openvino` backend
fixes the batch at max_batch_size and refuses every other one, so it cannot serve models that batch
dynamically.
"""

import contextlib
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

DEFAULT_FILENAME = "model.xml"
# A model whose config has this is loaded when it is first asked: until then it takes hardly any
# memory, and no time of the server's start.
LOAD, LATE = "load", "first request"
# Of whoever started the server: a model that was loaded late leaves a file of its name there.
FOLDER = os.environ.get("RAM_SERVER_FOLDER")
# If a file is missing that only some builds write.
REMEDIES = {"int8.xml": "run 'make model' with INT8=DIR, or name model.onnx in configs/cpu.pbtxt"}


class ShapeError(ValueError):
    """An input has a shape that the model does not take; the message starts with its name."""


class TritonPythonModel:
    """Runs one OpenVINO or ONNX model on the CPU."""

    def initialize(self, args):
        """Find the model, and load it unless its config says later."""
        config = json.loads(args["model_config"])
        self.parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        filename = config.get("default_model_filename") or DEFAULT_FILENAME
        self.name = args["model_name"]
        self.path = Path(args["model_repository"]) / args["model_version"] / filename
        if not self.path.is_file():
            remedy = REMEDIES.get(filename, "run 'make model' first")
            raise pb_utils.TritonModelException(f"{self.path} is missing: {remedy}")
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.count = load_count(self.path.with_name("backlog.py"))
        self.model = None
        if self.parameters.get(LOAD) != LATE:
            self.load()

    def load(self):
        """Compile the model with the properties that its config sets."""
        from on_cpu import (  # it imports OpenVINO, half a second of a processor
            PRECISION,
            chosen_properties,
            compile_for_cpu,
            precision_of,
        )

        properties = chosen_properties(self.parameters)
        self.model = compile_for_cpu(self.path, properties)
        self.warm_up()
        why = "as its config says" if PRECISION in properties else "the best of this processor"
        pb_utils.Logger.log_info(
            f"{self.name}: {self.path.name} runs on the CPU in {precision_of(self.model)} ({why})"
        )

    def warm_up(self):
        """Run one row of zeros, so that no client waits for kernels to be compiled.

        Not by `model_warmup` in the config, which would need the sizes of one variant. Not where
        more than the number of rows is free: there not every size is valid.
        """
        inputs = {name: self.model.input(name) for name in self.inputs}
        rows = {name: tensor.partial_shape[1:] for name, tensor in inputs.items()}
        if all(row.is_static for row in rows.values()):
            self.model(
                {
                    name: np.zeros((1, *row.to_shape()), inputs[name].element_type.to_dtype())
                    for name, row in rows.items()
                }
            )

    def execute(self, requests):
        """Run all requests as one batch: the dynamic batcher has made them fit together."""
        try:
            if self.model is None:
                if FOLDER:
                    Path(FOLDER, self.name).touch()
                self.load()
            feeds, sizes = gather(requests, self.inputs)
            self.check(feeds)
            with self.count(sum(sizes)):
                results = self.model(feeds)
        except ShapeError as error:
            return fail(requests, str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # one that left `execute` would be sent with its traceback
            message = f"{type(error).__name__}: {error}".splitlines()[0]  # OpenVINO's have many
            return fail(requests, message, pb_utils.TritonError.INTERNAL)
        ends = np.cumsum(sizes)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, results[name][end - size : end]) for name in self.outputs]
            )
            for size, end in zip(sizes, ends, strict=True)
        ]

    def check(self, feeds):
        """Raise `ShapeError` if an input does not have the shape that the model takes."""
        for name, array in feeds.items():
            takes = self.model.input(name).partial_shape
            if not takes.compatible(type(takes)(list(array.shape))):
                sizes = ("?" if size.is_dynamic else str(size) for size in takes)
                raise ShapeError(f"{name}: {array.shape}, the model takes ({', '.join(sizes)})")


def load_count(module):
    """Return what counts a batch's rows while it runs: the model's own, if it has such a file."""
    if not module.is_file():
        return lambda rows: contextlib.nullcontext()
    spec = importlib.util.spec_from_file_location(module.stem, module)
    backlog = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backlog)
    return backlog.Encoder().taking


def fail(requests, message, code):
    """Answer every request with the same error, one line of text."""
    failure = pb_utils.TritonError(message, code)
    return [pb_utils.InferenceResponse(error=failure) for _ in requests]


def gather(requests, names):
    """Join the requests' inputs along their first axis; returns them and each request's rows."""
    parts = [
        [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
        for name in names
    ]
    feeds = {
        name: rows[0] if len(rows) == 1 else np.concatenate(rows)
        for name, rows in zip(names, parts, strict=True)
    }
    return feeds, [len(rows) for rows in parts[0]]
