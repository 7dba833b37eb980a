"""A tiny random CLIP in the formats of transformers and open_clip, with a tokenizer of its own."""

import json
import string
from pathlib import Path

import torch
from ram_triton.model import ram  # noqa: F401  (declares the operators that torchvision misses)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection
from transformers.utils import logging

WIDTH = 64  # as wide as the tiny RAM's labels
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
MERGES = ("a n", "t h", "th e</w>", "p h", "ph o")


def tiny_clip(act: str = "quick_gelu") -> CLIPTextModelWithProjection:
    """Return a text tower of two layers with random weights."""
    torch.manual_seed(7)
    config = CLIPTextConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=128,
        intermediate_size=512,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = CLIPTextModelWithProjection(config).eval()
    for parameter in model.parameters():
        # The initialisation is so small that all texts would be nearly the same.
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def save_for_transformers(model: CLIPTextModelWithProjection, folder: Path) -> Path:
    """Write it as transformers does, with vocab.json and merges.txt."""
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def save_for_open_clip(model: CLIPTextModelWithProjection, folder: Path, prefix: str = "") -> Path:
    """Write it under open_clip's names, beside something of a vision tower."""
    folder.mkdir(parents=True)
    source = model.state_dict()
    weights = {
        "token_embedding.weight": source["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": source["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": source["text_model.final_layer_norm.weight"],
        "ln_final.bias": source["text_model.final_layer_norm.bias"],
        "text_projection": source["text_projection.weight"].T.contiguous(),
    }
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for number in range(2):
        block, layer = f"transformer.resblocks.{number}", f"text_model.encoder.layers.{number}"
        for kind in ("weight", "bias"):
            for ours, theirs in parts.items():
                weights[f"{block}.{ours}.{kind}"] = source[f"{layer}.{theirs}.{kind}"]
            weights[f"{block}.attn.in_proj_{kind}"] = torch.cat(
                [source[f"{layer}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            )
    weights = {prefix + name: value for name, value in weights.items()}
    torch.save(
        weights | {"visual.proj": torch.zeros(3), "logit_scale": torch.tensor(1.0)},
        folder / "open_clip_pytorch_model.bin",
    )
    text = {
        "context_length": 77,
        "vocab_size": len(_vocabulary()),
        "width": 128,
        "heads": 2,
        "layers": 2,
    }
    quick = model.config.hidden_act == "quick_gelu"
    config = {"model_cfg": {"embed_dim": WIDTH, "quick_gelu": quick, "text_cfg": text}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    _save_tokenizer(folder)
    return folder


def _vocabulary() -> dict[str, int]:
    letters = [*string.ascii_lowercase, *string.digits, ".", "-"]
    merged = [merge.replace(" ", "") for merge in MERGES]
    names = [*SPECIAL, *letters, *(f"{letter}</w>" for letter in letters), *merged]
    return {name: index for index, name in enumerate(names)}


def _save_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(_vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
