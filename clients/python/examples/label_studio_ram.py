"""A Label Studio ML backend that asks a RAM server: tags as pre-annotations.

    gunicorn --bind 127.0.0.1:9090 label_studio_ram:app

It fills the project's `Choices` of an `Image`: with those of its choices that the picture has, by
their English or Chinese names, or with all tags if these come from the tasks. The environment
variable RAM_SERVER names another server than localhost:8001.
"""

import logging
import os
from functools import cache
from typing import Any

from label_studio_ml.api import init_app
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse
from ram_client import ImageUnreadable, InvalidRequest, RamClient, Tag


@cache
def _client() -> RamClient:
    return RamClient(os.environ.get("RAM_SERVER") or "localhost:8001")


class RamBackend(LabelStudioMLBase):
    """Predicts the tags of the pictures of tasks."""

    def setup(self) -> None:
        """Name the version that predictions have."""
        self.set("model_version", "ram")

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **_: Any
    ) -> ModelResponse:
        """Return a prediction per task, an empty one for a picture that is bad or not to be had.

        Raises RamError if there is no server, which Label Studio shows.
        """
        control, image, value = self.label_interface.get_first_tag_occurence("Choices", "Image")
        choices = self.label_interface.get_control(control).labels
        predictions = []
        for task in tasks:
            try:
                found = _chosen(_client().tag(self._picture(task, value)), choices)
            except (ImageUnreadable, InvalidRequest, OSError) as error:
                logging.warning("task %s: %s", task.get("id"), error)
                found = {}
            result = {
                "from_name": control,
                "to_name": image,
                "type": "choices",
                "value": {"choices": list(found)},
            }
            predictions.append(
                {
                    "result": [result] if found else [],
                    "score": sum(found.values()) / len(found) if found else 0.0,
                }
            )
        return ModelResponse(predictions=predictions)

    def _picture(self, task: dict[str, Any], value: str) -> str | bytes:
        """The picture of a task as the client takes it: a file, or the text of a `data:` URL."""
        place: str = task["data"][value]
        if place.startswith("data:"):
            return place.encode()
        return self.get_local_path(place, task_id=task.get("id"))


def _chosen(tags: list[Tag], choices: list[str]) -> dict[str, float]:
    """The scores of the choices that are among the tags; of all tags if there are no choices."""
    if not choices:
        return {tag.name: tag.score for tag in tags}
    scores = {name.casefold(): tag.score for tag in tags for name in (tag.name, tag.name_zh)}
    return {name: scores[name.casefold()] for name in choices if name.casefold() in scores}


app = init_app(RamBackend)
