"""A repository under a profile, read as far as its files can be read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ram_triton.errors import EngineConfigError, RepositoryError
from ram_triton.files import sha256
from ram_triton.model.variant import Variant
from ram_triton.repository.configs import EngineConfig
from ram_triton.repository.layout import MODELS, Model, models_in, planned_models
from ram_triton.repository.repository import Repository
from ram_triton.server_code import MOST_MAPS

TEXT_COST = 4 / 3  # bytes of base64 per byte of an image

Advance = Callable[[int], None]


@dataclass(frozen=True)
class RepositoryView:
    """A model repository under a profile.

    Attributes:
        root: its folder.
        profile: `cpu` takes configs/cpu.pbtxt if a model has one.
        configs: the configs that can be read, by model.
        config_problems: what is wrong with the others, a line each.
        manifest: what the build wrote; empty if there is none that can be read.
        manifest_problem: why it cannot be read; empty if it can, or if there is none.
        advance: called with each number of bytes that is read to hash files.
    """

    root: Path
    profile: str
    configs: Mapping[str, EngineConfig]
    config_problems: list[str]
    manifest: Mapping[str, Any]
    manifest_problem: str
    advance: Advance
    _hashes: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls, root: Path, profile: str, advance: Advance = lambda count: None
    ) -> "RepositoryView":
        """Read the configs and the manifest; what is wrong with them is kept, not raised."""
        configs, problems, damage = {}, [], ""
        for model in models_in(root):
            try:
                configs[model.name] = EngineConfig.read(_config_file(root, profile, model))
            except EngineConfigError as error:
                problems.append(str(error).removeprefix(f"{root}/"))
        try:
            manifest = Repository(root).manifest() or {}
        except RepositoryError as error:
            manifest, damage = {}, str(error)
        return cls(root, profile, configs, problems, manifest, damage, advance)

    @property
    def models(self) -> list[Model]:
        """The models that have to be there, and the optional ones that are."""
        return models_in(self.root)

    @property
    def planned(self) -> list[Model]:
        """Those of them that TensorRT runs in the GPU profile."""
        return planned_models(self.root)

    def config_name(self, model: str) -> Path:
        """Return the profile's config of a model, relative to the root."""
        return _config_file(self.root, self.profile, MODELS[model]).relative_to(self.root)

    @property
    def artefacts(self) -> dict[str, str]:
        """The hash of each artefact by the manifest; empty if it has none."""
        artefacts = self.manifest.get("artefacts")
        return artefacts if isinstance(artefacts, dict) else {}

    def sha256(self, path: Path) -> str:
        """Return a file's hash, which is computed once."""
        if path not in self._hashes:
            self._hashes[path] = sha256(path, self.advance)
        return self._hashes[path]

    @cached_property
    def variant(self) -> Variant | None:
        """The model's sizes by the manifest; None if it has none."""
        try:
            return Variant.from_dict(self.manifest["variant"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def tensor_bytes(self, variant: Variant) -> dict[str, int]:
        """Return the bytes per image of each tensor that models hand on."""
        config = self.configs.get("ram_preprocess")
        # Of the largest image that is accepted; 0 if the config has no limit.
        image = int(((config and config.last_number("max_bytes")) or 0) * TEXT_COST)
        return {
            "image": image,
            "passed_image": image,
            "pixels": variant.image_size**2 * 3,
            "passed_pixels": variant.image_size**2 * 3,
            "image_embeds": variant.num_tokens * variant.image_width * 4,
            "embedding": variant.image_width * 4,
            "logits": variant.num_tags * 4,
            "map_ids": MOST_MAPS * 4,
            "maps": MOST_MAPS * (variant.num_tokens - 1) * 4,
        }

    def largest_batch(self, model: str) -> int:
        """Return the images per request; as many as `ram` takes if the model does not batch."""
        ensemble = self.configs.get("ram")
        limits = [each.model.max_batch_size for each in (self.configs[model], ensemble) if each]
        return int(next(filter(None, limits), 1))

    def instances(self, model: str, gpu: int | None = None) -> int:
        """Count a model's instances on the CPU, or on one GPU; a group without GPUs is on all."""
        groups = self.configs[model].model.instance_group
        here = [group for group in groups if gpu is None or not group.gpus or gpu in group.gpus]
        return sum(max(group.count, 1) for group in here) if groups else 1


def _config_file(root: Path, profile: str, model: Model) -> Path:
    special = root / model.name / "configs" / f"{profile}.pbtxt"
    return special if special.is_file() else root / model.name / "config.pbtxt"


def read_json(path: Path) -> object:
    """Return what a JSON file contains; None if it is missing or damaged."""
    try:
        contents: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return contents


def mebibytes(number: float) -> str:
    """Write bytes as people read them: `12 MiB`, `1.5 GiB`."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
