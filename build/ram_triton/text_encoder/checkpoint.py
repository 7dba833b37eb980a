"""A text encoder's folder to PyTorch: transformers' and open_clip's CLIP, and sentence-BERT."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

# First, as it declares operators that torchvision, which transformers imports, lacks on a CPU.
from ram_triton.model import ram  # noqa: F401

# isort: split
from transformers import (
    AutoTokenizer,
    BertModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.utils import logging

from ram_triton.errors import TextEncoderError
from ram_triton.server_code import LabelText

CLIP, SENTENCE_BERT = "CLIP", "sentence-BERT"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MAX_TOKENS = 77  # CLIP's, and the largest that the plan takes
# The parts of a block: open_clip's names, and transformers'.
BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class Tower(nn.Module):
    """Tokens to embeddings of length 1.

    Attributes:
        width: numbers in an embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed (sentences, tokens) int32; returns (sentences, width)."""
        embeds = self.pool(input_ids.long(), attention_mask.long())
        return nn.functional.normalize(embeds, dim=-1)

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Make one vector of each sentence's tokens, int64."""
        raise NotImplementedError


class ClipTower(Tower):
    """CLIP's text tower: the state of a sentence's last token, projected.

    Padding follows the last token and attention is causal, so the mask only locates that token.
    """

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        super().__init__(model.text_projection.out_features)
        self.text, self.projection = model.text_model, model.text_projection

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (sentences, width)."""
        states = self.text(input_ids=input_ids).last_hidden_state
        last = attention_mask.sum(1) - 1
        projected: Tensor = self.projection(states[torch.arange(states.shape[0]), last])
        return projected


class SentenceBertTower(Tower):
    """A sentence-BERT: the mean of a sentence's token states (Reimers and Gurevych 2019)."""

    def __init__(self, model: BertModel) -> None:
        super().__init__(model.config.hidden_size)
        self.bert = model

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (sentences, width)."""
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1)


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder in PyTorch.

    Attributes:
        kind: `CLIP` or `SENTENCE_BERT`.
        tower: tokens and mask to embeddings.
        tokenizer: does not pad or truncate.
        max_tokens: the most per sentence.
    """

    kind: str
    tower: Tower
    tokenizer: Tokenizer
    max_tokens: int

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed names as the server does: (names, width) float32, each of length 1.

        Args:
            names: in the language of the text encoder.
            templates: sentences with `{name}` and optionally `{a}`.
        """
        tokenizer = _copy(self.tokenizer)
        tokenizer.enable_truncation(self.max_tokens)
        text = LabelText(tokenizer, templates, self.tower.width)
        embeds: npt.NDArray[np.float32] = text.embed(names, self.encode)
        return embeds

    def encode(self, ids: npt.NDArray[np.int32], mask: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Embed tokens and their mask, (sentences, tokens); returns (sentences, width)."""
        with torch.inference_mode():
            embeds: Tensor = self.tower(torch.from_numpy(ids), torch.from_numpy(mask))
        return embeds.numpy()


def load_text_encoder(folder: Path) -> TextEncoder:
    """Load a folder with config, weights and tokenizer; code in it does not run.

    Raises:
        TextEncoderError: its format is unknown, or something is missing or damaged.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
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
        f"{folder}: the model type in config.json is '{kind}', expected a CLIP or a sentence-BERT"
    )


def _clip(model: CLIPTextModelWithProjection, folder: Path) -> TextEncoder:
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    length = min(model.config.max_position_embeddings, MAX_TOKENS)
    return TextEncoder(CLIP, ClipTower(model).eval(), _plain(tokenizer), length)


def _pretrained(kind: Any, folder: Path, **options: object) -> Any:
    model, loading = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
    )
    if missing := sorted(loading["missing_keys"]):
        raise TextEncoderError(f"{folder}: the weights lack '{missing[0]}'")
    return model


def _plain(tokenizer: Any) -> Tokenizer:
    plain = _copy(tokenizer.backend_tokenizer)
    plain.no_padding()
    plain.no_truncation()
    return plain


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.to_str())


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
        raise TextEncoderError(f"{folder}: {' or '.join(OPEN_CLIP_WEIGHTS)} is missing")
    path = found[0]
    weights = (
        load_file(path)
        if path.suffix == ".safetensors"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    model.load_state_dict(_translate(weights), strict=True)
    return model


def _translate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the weights of open_clip's text tower their names in transformers."""
    # The vision tower is left out. Newer models have "text." before the names of the text tower.
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
    """Turn the libraries' exceptions about a folder into a `TextEncoderError` with one line."""
    try:
        yield
    except TextEncoderError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else error
        raise TextEncoderError(f"{folder}: {missing} is missing") from error
    except Exception as error:  # damaged files raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise TextEncoderError(f"{folder}: {type(error).__name__}: {reason}") from error
