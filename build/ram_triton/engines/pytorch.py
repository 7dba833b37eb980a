"""PyTorch: the model as a function of pixels."""

import torch

from ram_triton.engines.tagger import Logits, Pixels, Tagger
from ram_triton.model.ram import RAM


def torch_tagger(model: RAM, device: str = "cpu") -> Tagger:
    """Return the model, moved to `cpu` or `cuda`, as a function of pixels."""
    model = model.to(device)

    def tag(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            logits: Logits = model(torch.from_numpy(pixels).to(device)).cpu().numpy()
        return logits

    return tag
