"""Pictures to learn from: varied images on varied backgrounds, a batch at once.

All random numbers come from a generator that is made for each batch, so a batch looks the same
whenever and wherever it is made.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ram_triton.training.config import Augmentation

LEVELS = 3  # each half the size of the one before; an image is shrunk from the nearest


def choose_objects(settings: Augmentation, pictures: int, chance: Generator) -> Tensor:
    """Choose how many images share each picture, int64 (pictures)."""
    shares = torch.tensor(settings.objects)
    return torch.multinomial(shares, pictures, replacement=True, generator=chance) + 1


def compose(
    images: Tensor,
    picture_of: Tensor,
    pictures: int,
    size: int,
    settings: Augmentation,
    chance: Generator,
) -> Tensor:
    """Draw pictures.

    Args:
        images: RGBA, uint8 (images, height, width, 4).
        picture_of: the picture that each image goes to, int64 (images); in one picture, later
            images lie above earlier ones.
        pictures: how many pictures.
        size: their side length in pixels.
        settings: how they are varied.
        chance: the source of all random numbers.

    Returns:
        RGB, uint8 (pictures, size, size, 3).
    """
    layers = images.permute(0, 3, 1, 2).float() / 255
    # Premultiplied, so that the colour of transparent pixels does not bleed into their neighbours.
    layers[:, :3] *= layers[:, 3:]
    layers = _vary_colour(layers, settings.colour, chance)
    layers = _place(layers, picture_of, pictures, size, settings, chance)
    canvas = _backgrounds(pictures, size, settings.backgrounds, chance)
    depth = _depth(picture_of)
    for level in range(int(depth.max()) + 1):
        chosen = (depth == level).nonzero().squeeze(1)
        target, layer = picture_of[chosen], layers[chosen]
        canvas[target] = canvas[target] * (1 - layer[:, 3:]) + layer[:, :3]
    noise = torch.rand(pictures, 1, 1, 1, generator=chance) * settings.noise / 255
    canvas += torch.randn(canvas.shape, generator=chance) * noise
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _uniform(shape: tuple[int, ...], low: float, high: float, chance: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=chance)


def _depth(picture_of: Tensor) -> Tensor:
    """Return how many images lie below each in its picture."""
    same = picture_of[:, None] == picture_of[None, :]
    return same.tril(diagonal=-1).sum(dim=1)


def _vary_colour(layers: Tensor, strength: float, chance: Generator) -> Tensor:
    """Turn the hue, stretch saturation and contrast, shift brightness: one linear map each."""
    count = len(layers)
    angle = torch.randn(count, generator=chance) * strength * math.pi / 8
    saturation = _uniform((count, 1, 1), 1 - strength, 1 + strength, chance)
    contrast = _uniform((count, 1, 1), 1 - strength / 2, 1 + strength / 2, chance)
    shift = _uniform((count, 1, 1, 1), -strength / 3, strength / 3, chance)
    # Rotation about the grey axis (Rodrigues' formula), and that axis' own projection.
    grey = torch.full((3, 3), 1 / 3)
    turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    colour = cosine * (torch.eye(3) - grey) + sine * turn
    matrix = contrast * (grey + saturation * colour)
    alpha = layers[:, 3:]
    rgb = torch.einsum("nij,njhw->nihw", matrix, layers[:, :3])
    rgb += alpha * (shift + 0.5 * (1 - contrast[..., None]))
    return torch.cat([torch.minimum(rgb.clamp_(min=0), alpha), alpha], dim=1)


def _place(
    layers: Tensor,
    picture_of: Tensor,
    pictures: int,
    size: int,
    settings: Augmentation,
    chance: Generator,
) -> Tensor:
    """Scale, turn, mirror and shift each image into its own picture, (images, 4, S, S)."""
    count = len(layers)
    together = torch.bincount(picture_of, minlength=pictures)[picture_of]
    low, high = settings.scale
    scale = _uniform((count,), low, high, chance)
    # If several share a picture, they share its area, and lie in different quarters of it.
    scale = torch.where(together > 1, scale * (together + 0.5).rsqrt(), scale)
    start = torch.randint(4, (pictures,), generator=chance)
    quarter = (start[picture_of] + 3 * _depth(picture_of)) % 4
    corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])[quarter]
    centre = torch.where((together > 1)[:, None], 0.42 * corners, torch.zeros(1))
    centre = centre + _uniform((count, 2), -2 * settings.shift, 2 * settings.shift, chance)
    angle = _uniform((count,), -settings.rotation, settings.rotation, chance) * math.pi / 180
    mirror = torch.where(torch.rand(count, generator=chance) < settings.flip, -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    inverse = torch.stack(
        [torch.stack([cosine * mirror, sine * mirror], 1), torch.stack([-sine, cosine], 1)], 1
    )
    offset = -(inverse @ centre[:, :, None])
    grid = F.affine_grid(torch.cat([inverse, offset], 2), [count, 4, size, size], False)
    shrinking = layers.shape[-1] / (size * scale)
    level = shrinking.log2().round().clamp(0, LEVELS - 1).long()
    placed = torch.empty(count, 4, size, size)
    for number in range(LEVELS):
        chosen = (level == number).nonzero().squeeze(1)
        if len(chosen):
            small = F.avg_pool2d(layers[chosen], 2**number) if number else layers[chosen]
            placed[chosen] = F.grid_sample(small, grid[chosen], "bilinear", "zeros", False)
    return placed


def _backgrounds(pictures: int, size: int, share: float, chance: Generator) -> Tensor:
    """Return white, or a colour that varies smoothly, (pictures, 3, size, size)."""
    colour = torch.rand(pictures, 3, 1, 1, generator=chance)
    strength = torch.rand(pictures, 1, 1, 1, generator=chance) ** 2
    patches = torch.rand(pictures, 3, 4, 4, generator=chance) - 0.5
    varied = colour + strength * F.interpolate(patches, (size, size), mode="bicubic")
    white = torch.rand(pictures, 1, 1, 1, generator=chance) >= share
    return torch.where(white, torch.ones(1), varied.clamp(0, 1))
