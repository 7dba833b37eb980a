"""The backend of the CPU profile: OpenVINO, with batches of any size.

Placed as `ram_openvino/model.py` into the server's backend directory, with `on_cpu.py` beside it,
it serves every model whose config says `backend: "ram_openvino"`. NVIDIA's own `openvino` backend
fixes the batch at max_batch_size and refuses every other one, so it cannot serve models that batch
dynamically.
"""

import json
from pathlib import Path

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils
from on_cpu import PRECISION, chosen_properties, compile_for_cpu, precision_of

DEFAULT_FILENAME = "model.xml"
# If a file is missing that only some builds write.
REMEDIES = {"int8.xml": "run 'make model' with INT8=DIR, or name model.onnx in configs/cpu.pbtxt"}


class ShapeError(ValueError):
    """An input has a shape that the model does not take; the message starts with its name."""


class TritonPythonModel:
    """Runs one OpenVINO or ONNX model on the CPU."""

    def initialize(self, args):
        """Compile the model with the properties that its config sets."""
        config = json.loads(args["model_config"])
        parameters = {k: v["string_value"] for k, v in config.get("parameters", {}).items()}
        filename = config.get("default_model_filename") or DEFAULT_FILENAME
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            remedy = REMEDIES.get(filename, "run 'make model' first")
            raise pb_utils.TritonModelException(f"{path} is missing: {remedy}")
        properties = chosen_properties(parameters)
        self.model = compile_for_cpu(path, properties)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.warm_up()
        why = "as its config says" if PRECISION in properties else "the best of this processor"
        pb_utils.Logger.log_info(
            f"{args['model_name']}: {filename} runs on the CPU in {precision_of(self.model)} "
            f"({why})"
        )

    def warm_up(self):
        """Run one row of zeros, so that no client waits for kernels to be compiled.

        Not by `model_warmup` in the config, which would need the sizes of one variant. Not where
        more than the number of rows is free: there not every size is valid.
        """
        shapes = {name: self.model.input(name).partial_shape for name in self.inputs}
        if all(not size.is_dynamic for shape in shapes.values() for size in list(shape)[1:]):
            self.model(
                {
                    name: np.zeros(
                        (1, *(size.get_length() for size in list(shape)[1:])),
                        self.model.input(name).element_type.to_dtype(),
                    )
                    for name, shape in shapes.items()
                }
            )

    def execute(self, requests):
        """Run all requests as one batch: the dynamic batcher has made them fit together."""
        try:
            feeds, sizes = gather(requests, self.inputs)
            self.check(feeds)
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
            if not takes.compatible(openvino.PartialShape(list(array.shape))):
                sizes = ("?" if size.is_dynamic else str(size) for size in takes)
                raise ShapeError(f"{name}: {array.shape}, the model takes ({', '.join(sizes)})")


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
