"""The repository that is looked at, as far as its files can be read."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ram_triton.model.variant import Variant
from ram_triton.repository.layout import MANIFEST, MODELS, Engine

TEXT_COST = 4 / 3  # base64 of an image, against the image


@dataclass
class Inspected:
    """A model repository under a profile.

    Attributes:
        root: its folder.
        profile: `cpu` takes configs/cpu.pbtxt where a model has one.
        configs: each model's config (Triton's `ModelConfig` message), of those that parse.
    """

    root: Path
    profile: str
    configs: dict[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that have to be there, and those that may be and are."""
        return tuple(
            model.name
            for model in MODELS.values()
            if not model.optional or (self.root / model.name).is_dir()
        )

    @property
    def planned(self) -> tuple[str, ...]:
        """Those of them that TensorRT runs."""
        return tuple(name for name in self.models if MODELS[name].engine is Engine.GRAPH)

    def config_file(self, model: str) -> Path:
        """Return the config that the profile serves a model with."""
        special = self.root / model / "configs" / f"{self.profile}.pbtxt"
        return special if special.is_file() else self.root / model / "config.pbtxt"

    @cached_property
    def manifest(self) -> dict:
        """What the build wrote; empty where it cannot be read, which a finding of its own tells."""
        manifest = read_json(self.root / MANIFEST)
        return manifest if isinstance(manifest, dict) else {}

    @property
    def artefacts(self) -> dict[str, str]:
        """Each artefact's hash by the manifest; empty where it has none."""
        artefacts = self.manifest.get("artefacts")
        return artefacts if isinstance(artefacts, dict) else {}

    @cached_property
    def variant(self) -> Variant | None:
        """The model's sizes by the manifest, or None where it has none."""
        try:
            return Variant.from_dict(self.manifest.get("variant", {}))
        except (AttributeError, TypeError, ValueError):
            return None

    def tensor_bytes(self) -> dict[str, int] | None:
        """Bytes for one image of each tensor between the models; None without a variant."""
        variant = self.variant
        if variant is None:
            return None
        image = int(self._largest_image() * TEXT_COST)
        return {
            "image": image,
            "passed_image": image,
            "pixels": variant.image_size**2 * 3,
            "image_embeds": variant.num_tokens * variant.image_width * 4,
            "embedding": variant.image_width * 4,
            "logits": variant.num_tags * 4,
        }

    def _largest_image(self) -> int:
        """Bytes of the largest image that the preprocessor takes; 0 where its config says none."""
        config = self.configs.get("ram_preprocess")
        limit = config.parameters["max_bytes"].string_value if config else ""
        return int(limit) if limit.isdecimal() else 0

    def largest_batch(self, model: str) -> int:
        """Images in a request to a model; to one that does not batch, as many as to `ram`."""
        ensemble = self.configs.get("ram")
        return self.configs[model].max_batch_size or (ensemble.max_batch_size if ensemble else 1)

    def free_sizes(self, model: str) -> dict[str, list[tuple[int, ...]]]:
        """Return the smallest, usual and largest sizes that a plan of a model has to take.

        Returns:
            The sizes of the free dimensions of each input, by its name.

        Raises:
            EngineConfigError: the config does not say them.
        """
        # Imported here, because it needs what a bare Python lacks; so does any parsed config.
        from ram_triton.repository.configs import EngineConfig

        config = EngineConfig(self.root / model / "config.pbtxt", self.configs[model])
        return {tensor.name: config.sizes(tensor.name) for tensor in config.model.input}

    def instances(self, model: str) -> int:
        """Count a model's instances on the CPU, or on one GPU."""
        groups = self.configs[model].instance_group
        return sum(max(group.count, 1) for group in groups) or 1

    def instances_on(self, model: str, gpu: int) -> int:
        """Count a model's instances on a GPU; a group that names none is on all of them."""
        groups = self.configs[model].instance_group
        here = [group for group in groups if not group.gpus or gpu in group.gpus]
        return sum(max(group.count, 1) for group in here) if groups else 1


def read_json(path: Path) -> Any | None:
    """Return what a JSON file holds, or None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def mebibytes(number: float) -> str:
    """Write bytes as people read them: `12 MiB`, `1.5 GiB`."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
