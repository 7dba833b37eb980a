"""Pixels to image embeddings: timm's Swin Transformer and a projection."""

import torch
from torch import Tensor, nn

# timm imports torchvision, whose wheel does not load beside a CPU build of torch unless these
# operators of its compiled part are at least declared. Where that part loads, it declares them.
try:
    import torchvision  # noqa: F401
except RuntimeError:
    for _name, _schema in (
        ("nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        torch.library.define(f"torchvision::{_name}", _schema)

from timm.models.swin_transformer import SwinTransformer, WindowAttention

from ram_triton.model.variant import PATCH_SIZE, Variant

__all__ = ["ImageEncoder", "SwinTransformer", "WindowAttention"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageEncoder(nn.Module):
    """A Swin Transformer whose tokens, and their mean before them, are projected."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.swin = SwinTransformer(
            img_size=variant.image_size,
            patch_size=PATCH_SIZE,
            window_size=variant.window_size,
            embed_dim=variant.embed_dim,
            depths=variant.depths,
            num_heads=variant.num_heads,
            num_classes=0,
            global_pool="",
        )
        self.projection = nn.Linear(self.swin.num_features, variant.image_width)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("pixel_scale", 1 / (255 * std), persistent=False)
        self.register_buffer("pixel_shift", -mean / std, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch of images.

        Args:
            pixels: RGB in 0..255, (batch, size, size, 3), uint8 or float.

        Returns:
            Image embeddings, (batch, 1 + tokens, image_width): first that of the mean token,
            then one for each token of the Swin's last stage, row by row.
        """
        normalised = pixels.to(self.pixel_scale.dtype) * self.pixel_scale + self.pixel_shift
        tokens = self.swin.forward_features(normalised.permute(0, 3, 1, 2)).flatten(1, 2)
        return self.projection(torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))
