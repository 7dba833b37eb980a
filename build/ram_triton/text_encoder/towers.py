"""Text encoders as PyTorch modules: tokens and mask to an embedding of length 1."""

import torch
from torch import Tensor, nn
from transformers import BertModel, CLIPTextModelWithProjection


class ClipTower(nn.Module):
    """CLIP's text tower: what stands at a sentence's last token, projected.

    Padding follows the last token and attention is causal, so the mask is needed for that place
    alone.
    """

    def __init__(self, model: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.text, self.projection = model.text_model, model.text_projection
        self.width = self.projection.out_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed (sentences, tokens) int32; returns (sentences, width)."""
        states = self.text(input_ids=input_ids.long()).last_hidden_state
        last = attention_mask.sum(1).long() - 1
        pooled = states[torch.arange(states.shape[0]), last]
        return _normalised(self.projection(pooled))


class SentenceBertTower(nn.Module):
    """A sentence-BERT: the mean of a sentence's token states (Reimers and Gurevych 2019)."""

    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.bert = model
        self.width = model.config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed (sentences, tokens) int32; returns (sentences, width)."""
        states = self.bert(
            input_ids=input_ids.long(), attention_mask=attention_mask.long()
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return _normalised((states * mask).sum(1) / mask.sum(1))


def _normalised(embeds: Tensor) -> Tensor:
    return embeds / embeds.norm(dim=-1, keepdim=True)
