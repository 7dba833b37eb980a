"""Tags and captions as text: their tokens, and the two BERTs that generation trains.

Only training with captions imports this file, and with it transformers.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, BertModel, BertTokenizer

from ram_triton.errors import TextError
from ram_triton.files import read_lines
from ram_triton.model.checkpoint import published_name
from ram_triton.model.ram import TaggingHead
from ram_triton.model.variant import Variant

VOCABULARY_FILE = "vocab.txt"  # of a BERT (bert-base-uncased in published RAMs), one token per line
REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CAPTION_BEGIN, TAGS_BEGIN = "[DEC]", "[ENC]"  # RAM adds them to the vocabulary in this order
TAG_SEPARATOR = " | "
PROMPT = "a picture of "
MAX_TOKENS = 40  # in the tags' text, and in a caption


class TextTokens(NamedTuple):
    """The text of a batch of images.

    Attributes:
        tag_ids: tokens of each image's tags, (batch, tokens), int64.
        tag_mask: True for a token, False for padding, of the same shape.
        caption_ids: tokens of each image's caption, (batch, tokens), int64.
        caption_mask: True for a token, of the same shape.
        ignored: True for tokens that are not scored: prompt, padding, no caption.
    """

    tag_ids: Tensor
    tag_mask: Tensor
    caption_ids: Tensor
    caption_mask: Tensor
    ignored: Tensor

    def to(self, device: torch.device | str) -> Self:
        """Return the same tokens on a device."""
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in self))


class Tokenizer:
    """Makes tokens of tags and captions, with a BERT's vocabulary and RAM's special tokens.

    Args:
        folder: contains the vocabulary, `vocab.txt`.

    Raises:
        TextError: the vocabulary is not a BERT's.
        OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / VOCABULARY_FILE
        lines = read_lines(path)
        if missing := [token for token in REQUIRED_TOKENS if token not in lines]:
            raise TextError(f"{path}: is not a BERT vocabulary, it lacks {', '.join(missing)}")
        self._bert = BertTokenizer(vocab={token: number for number, token in enumerate(lines)})
        self._bert.add_tokens([CAPTION_BEGIN, TAGS_BEGIN], special_tokens=True)
        # [CLS] is at the front, where the beginning replaces it; [SEP] is not part of the prompt.
        self._prompt_length = len(self._bert(PROMPT).input_ids) - 1

    def __len__(self) -> int:
        return len(self._bert)

    def __call__(self, tags: Sequence[Sequence[str]], captions: Sequence[str | None]) -> TextTokens:
        """Tokenise a batch.

        Args:
            tags: the English names of each image's tags.
            captions: each image's caption, without the prompt; None if it has none.
        """
        tag_ids, tag_mask = self._encode([TAG_SEPARATOR.join(row) for row in tags], TAGS_BEGIN)
        caption_ids, caption_mask = self._encode(
            [PROMPT + (caption or "") for caption in captions], CAPTION_BEGIN
        )
        ignored = ~caption_mask
        ignored[:, : self._prompt_length] = True
        ignored[[caption is None for caption in captions]] = True
        return TextTokens(tag_ids, tag_mask, caption_ids, caption_mask, ignored)

    def decode(self, token_ids: Tensor) -> str:
        """Return the text of (tokens,) int64 tokens, without the special ones."""
        return str(self._bert.decode(token_ids, skip_special_tokens=True))

    def _encode(self, texts: list[str], begin: str) -> tuple[Tensor, Tensor]:
        encoded = self._bert(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        encoded.input_ids[:, 0] = self._bert.convert_tokens_to_ids(begin)
        return encoded.input_ids, encoded.attention_mask.bool()


class TextParts(nn.Module):
    """Tag encoder and text decoder: image and tags to caption (Zhang et al. 2023, section 3.1).

    Both are BERTs with cross-attention: the encoder's to the image, the decoder's to the encoded
    tags. The encoder's lowest layers share cross-attention and feed-forward network with the
    tagging head's: the parameters are the same objects. Only the number of attention heads differs
    (4 in the tagging head, 12 here), as in RAM's reference.

    Args:
        variant: the RAM's sizes; the widths are those of its tagging head.
        head: the tagging head to share layers with.
        vocabulary: number of tokens, `len(Tokenizer)`.
        layers: of each of the two.
        heads: of each attention.
        positions: the longest text.

    Raises:
        TextError: the encoder has fewer layers than the tagging head.
    """

    def __init__(
        self,
        variant: Variant,
        head: TaggingHead,
        vocabulary: int,
        layers: int,
        heads: int,
        positions: int = 512,
    ) -> None:
        super().__init__()
        if layers < len(head.layers):
            raise TextError(
                f"text.layers: a tag encoder of {layers} layers cannot share the tagging "
                f"head's {len(head.layers)}"
            )
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=variant.hidden_size,
            intermediate_size=variant.intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=positions,
            is_decoder=True,
            add_cross_attention=True,
        )
        self.tag_encoder = BertModel(copy.copy(config), add_pooling_layer=False)
        self.text_decoder = BertLMHeadModel(config)
        # transformers builds cross-attention into causal BERTs only; the encoder is not causal.
        self.tag_encoder.config.is_decoder = False
        encoder_layers: Any = self.tag_encoder.encoder.layer
        for layer in encoder_layers:
            layer.attention.self.is_causal = False
            _attend_to_width(layer.crossattention.self, variant.image_width)
        for layer, tagging_layer in zip(encoder_layers, head.layers, strict=False):
            _tie(layer, tagging_layer)
        for embeddings in (self.tag_encoder.embeddings, self.text_decoder.bert.embeddings):
            # Published RAMs have no token types; zeros that stay zeros are equivalent.
            nn.init.zeros_(embeddings.token_type_embeddings.weight).requires_grad_(False)

    def forward(self, image_embeds: Tensor, text: TextTokens) -> Tensor:
        """Predict each next token of the captions.

        Padding is masked everywhere, so it changes nothing. (In RAM's reference the decoder
        also attends to the padding of the tags, which always have 40 tokens there.)

        Args:
            image_embeds: (batch, tokens, image_width).
            text: the same images' text.

        Returns:
            Logits of each token's successor, (batch, caption tokens, vocabulary).
        """
        tags = self.tag_encoder(
            text.tag_ids, attention_mask=text.tag_mask, encoder_hidden_states=image_embeds
        )
        predicted: Tensor = self.text_decoder(
            text.caption_ids,
            attention_mask=text.caption_mask,
            encoder_hidden_states=tags.last_hidden_state,
            encoder_attention_mask=text.tag_mask,
            use_cache=False,
        ).logits
        return predicted


def _attend_to_width(attention: Any, width: int) -> None:
    """Let the keys and values of cross-attention have another width than the queries."""
    for name in ("key", "value"):
        linear = nn.Linear(width, attention.all_head_size)
        nn.init.normal_(linear.weight, std=attention.config.initializer_range)
        nn.init.zeros_(linear.bias)
        setattr(attention, name, linear)


def _tie(layer: nn.Module, tagging_layer: nn.Module) -> None:
    """Make a BERT layer use the same parameters as a tagging layer."""
    for name, parameter in tagging_layer.named_parameters():
        # A published name without its beginning is the parameter's place in a BERT layer.
        published = published_name(f"head.layers.0.{name}")
        path = published.removeprefix("tagging_head.encoder.layer.0.")
        module, _, attribute = path.rpartition(".")
        setattr(layer.get_submodule(module), attribute, parameter)
