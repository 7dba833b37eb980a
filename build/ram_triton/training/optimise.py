"""How a model learns: the optimiser, its learning rate, the device and its precision.

timm's schedule and parameter groups, and PyTorch's AveragedModel, would have to be wrapped to do
the same: here a step's learning rate is a function of the step alone, each group has its share of
it, and nothing but the step's number is needed to resume.
"""

import math
from collections import defaultdict

import torch
from torch import nn

from ram_triton.errors import ConfigError
from ram_triton.training.config import Optimisation

ENCODER = "ram.encoder."  # in the names of its parameters


def learning_rate(step: int, total: int, settings: Optimisation) -> float:
    """Return a step's learning rate: a linear warm-up, then half a cosine.

    The cosine is that of SGDR (Loshchilov and Hutter 2017, equation 5), without restarts.
    """
    warmup = min(settings.warmup_steps, total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


def make_optimiser(
    model: nn.Module, settings: Optimisation, device: torch.device
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019); only matrices decay.

    `share` of each group of parameters is its learning rate's share of the run's.
    """
    groups = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.dim() < 2 or name.endswith("relative_position_bias_table")
            decay = 0.0 if plain else settings.weight_decay
            share = settings.encoder_share if ENCODER in name else 1.0
            groups[decay, share].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "share": share}
            for (decay, share), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def choose_device(name: str) -> torch.device:
    """Return the device; "auto" is cuda if there is one.

    Raises:
        ConfigError: there is not.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: is cuda, but PyTorch finds no GPU here; set cpu or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type of matrix products; "auto" is bfloat16 if the device computes in it."""
    if name == "auto":
        if device.type == "cuda":
            able = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        name = "bfloat16" if able else "float32"
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
