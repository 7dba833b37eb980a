"""The model as a function of pixels, in PyTorch and as exported graphs."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import openvino
import torch

from ram_triton.model.ram import RAM

# Pixels, (B, size, size, 3) uint8, to logits, (B, tags) float32.
Tagger = Callable[[np.ndarray], np.ndarray]


def torch_tagger(model: RAM, device: str = "cpu") -> Tagger:
    """Return the PyTorch model, which moves to `cpu` or `cuda`, as a function of pixels."""
    model = model.to(device)

    def tag(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(pixels).to(device)).cpu().numpy()

    return tag


def onnx_tagger(encoder_path: Path, head_path: Path, **given: np.ndarray) -> Tagger:
    """Return both graphs, run by OpenVINO in float32 as the CPU profile does, as one function.

    Args:
        encoder_path: the encoder's graph.
        head_path: the head's.
        given: what the head takes beside the image embeddings, by its names.
    """
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    encoder, head = (
        openvino.Core().compile_model(path, "CPU", precision) for path in (encoder_path, head_path)
    )

    def tag(pixels: np.ndarray) -> np.ndarray:
        image_embeds = encoder(pixels)["image_embeds"]
        # A copy: the engine writes the next answer into the same buffer.
        return head({"image_embeds": image_embeds, **given})["logits"].copy()

    return tag


def open_tagger(model: RAM, open_head_path: Path, label_embeds: np.ndarray) -> Tagger:
    """Return PyTorch's encoder and the graph of the head that is given its labels, as one function.

    Args:
        model: its encoder is used.
        open_head_path: what `export_open_head` wrote.
        label_embeds: float32 (tags, label_width), or as `export_open_head` says for RAM++.
    """
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    head = openvino.Core().compile_model(open_head_path, "CPU", precision)

    def tag(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            image_embeds = model.encoder(torch.from_numpy(pixels)).numpy()
        return head({"image_embeds": image_embeds, "label_embeds": label_embeds})["logits"].copy()

    return tag


def run(tagger: Tagger, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Tag all batches; returns their logits, (images, tags) float32, in order."""
    return np.concatenate([tagger(pixels) for pixels in batches])
