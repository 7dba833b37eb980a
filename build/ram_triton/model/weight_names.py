"""How published checkpoints name the weights of this project's modules."""

import re

# Our prefix, the published one. A longer prefix stands before the one that it begins with.
MODULES = (
    ("encoder.swin.", "visual_encoder."),
    ("encoder.projection.", "image_proj."),
    ("head.label_projection.", "wordvec_proj."),
    ("head.classifier.", "fc."),
    ("head.layers.", "tagging_head.encoder.layer."),
)
LAYER_PARTS = (
    ("attention.output.", "crossattention.output.dense."),
    ("attention.", "crossattention.self."),
    ("attention_norm.", "crossattention.output.LayerNorm."),
    ("expand.", "intermediate.dense."),
    ("contract.", "output.dense."),
    ("norm.", "output.LayerNorm."),
)
LAYER = re.compile(r"(tagging_head\.encoder\.layer\.\d+\.)(.+)")
# timm merges patches at the start of a stage, Microsoft's Swin at the end of the one before.
DOWNSAMPLE = re.compile(r"(visual_encoder\.layers\.)(\d+)(\.downsample\..+)")


def published_name(name: str) -> str:
    """Return what published checkpoints call the weight that `RAM.state_dict` calls `name`."""
    name = _replace_prefix(name, MODULES)
    if match := LAYER.fullmatch(name):
        return match[1] + _replace_prefix(match[2], LAYER_PARTS)
    if match := DOWNSAMPLE.fullmatch(name):
        return f"{match[1]}{int(match[2]) - 1}{match[3]}"
    return name


def _replace_prefix(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for ours, published in prefixes:
        if name.startswith(ours):
            return published + name.removeprefix(ours)
    return name
