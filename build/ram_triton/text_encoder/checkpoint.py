"""A text encoder's folder to a module: transformers' and open_clip's CLIP, and sentence-BERT."""

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.utils import logging

from ram_triton.errors import TextEncoderError
from ram_triton.model import ram  # noqa: F401  (declares the operators that torchvision misses on a CPU)
from ram_triton.text_encoder.towers import ClipTower, SentenceBertTower

CLIP, SENTENCE_BERT = "CLIP", "sentence-BERT"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MAX_TOKENS = 77  # CLIP's, and what the plan takes
# open_clip's names of a block's parts, and transformers'.
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder in PyTorch.

    Attributes:
        kind: `CLIP` or `sentence-BERT`.
        tower: tokens and mask to embeddings.
        tokenizer: neither pads nor truncates.
        max_tokens: the most that a sentence may have.
    """

    kind: str
    tower: nn.Module
    tokenizer: Tokenizer
    max_tokens: int


def load_text_encoder(folder: Path) -> TextEncoder:
    """Load a folder that holds config, weights and tokenizer; runs no code in it.

    Raises:
        TextEncoderError: it is none of the formats, or something is missing or damaged.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not folder.is_dir():
        raise TextEncoderError(f"{folder}: no such folder")
    with _explained(folder), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if (folder / OPEN_CLIP_CONFIG).is_file():
            return _clip(_load_open_clip(folder), folder)
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind in ("clip", "clip_text_model"):
            return _clip(_pretrained(CLIPTextModelWithProjection, folder), folder)
        if kind == "bert" and (folder / "modules.json").is_file():
            tower = SentenceBertTower(_pretrained(BertModel, folder, add_pooling_layer=False))
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            return TextEncoder(SENTENCE_BERT, tower.eval(), _plain(tokenizer), MAX_TOKENS)
    raise TextEncoderError(
        f"{folder}: config.json tells of '{kind}', neither CLIP nor a sentence-BERT"
    )


def _clip(model: CLIPTextModelWithProjection, folder: Path) -> TextEncoder:
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    length = min(model.config.max_position_embeddings, MAX_TOKENS)
    return TextEncoder(CLIP, ClipTower(model).eval(), _plain(tokenizer), length)


def _pretrained(kind: type, folder: Path, **options: object) -> nn.Module:
    model, told = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
    )
    if missing := sorted(told["missing_keys"]):
        raise TextEncoderError(f"{folder}: the weights lack '{missing[0]}'")
    return model


def _plain(tokenizer: object) -> Tokenizer:
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    return plain


def _load_open_clip(folder: Path) -> CLIPTextModelWithProjection:
    config = json.loads((folder / OPEN_CLIP_CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    text = config["text_cfg"]
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            projection_dim=config["embed_dim"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["context_length"],
            # OpenAI's weights were trained with an approximation of GELU, LAION's with GELU.
            hidden_act="quick_gelu" if config.get("quick_gelu") else "gelu",
        )
    )
    found = [folder / name for name in OPEN_CLIP_WEIGHTS if (folder / name).is_file()]
    if not found:
        raise TextEncoderError(f"{folder}: there is neither {' nor '.join(OPEN_CLIP_WEIGHTS)}")
    path = found[0]
    weights = (
        load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    model.load_state_dict(_translate(weights), strict=True)
    return model


def _translate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name open_clip's text tower as transformers does; the vision tower is left out."""
    # Newer models have their text tower under a name of its own.
    text = {k.removeprefix("text."): v for k, v in weights.items() if not k.startswith("visual.")}
    named = {
        "text_model.embeddings.token_embedding.weight": text["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": text["positional_embedding"],
        "text_projection.weight": text["text_projection"].T,
    }
    for kind in ("weight", "bias"):
        named[f"text_model.final_layer_norm.{kind}"] = text[f"ln_final.{kind}"]
    for name, value in text.items():
        if not name.startswith("transformer.resblocks."):
            continue
        number, _, rest = name.removeprefix("transformer.resblocks.").partition(".")
        layer = f"text_model.encoder.layers.{number}"
        part, _, kind = rest.rpartition(".")
        if rest.startswith("attn.in_proj_"):
            kind = rest.removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                named[f"{layer}.self_attn.{letter}_proj.{kind}"] = third
        else:
            named[f"{layer}.{BLOCK[part]}.{kind}"] = value
    return {name: value.float().contiguous() for name, value in named.items()}


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise what the libraries raise over a folder as a `TextEncoderError`, in one line."""
    try:
        yield
    except TextEncoderError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else error
        raise TextEncoderError(f"{folder}: there is no {missing}") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
        pickle.UnpicklingError,
        EOFError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise TextEncoderError(f"{folder}: {type(error).__name__}: {reason}") from error
