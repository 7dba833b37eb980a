"""The end in order: new requests are refused, those that were there before are answered."""

import base64
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ram_triton.repository.layout import MODELS
from ram_triton.server.api import (
    MARK_BYTES,
    RAM,
    RAM_OPEN,
    RAM_PIXELS,
    Api,
    Outcome,
    picture,
)

# The steps that refuse while a file of their name is in the server's folder:
# model_repository/ram_preprocess/1/door.py.
FIRST_STEP = "ram_preprocess"
OWN_STEPS = {RAM_OPEN: "ram_open_labels", RAM_PIXELS: "ram_pixels_check"}  # before or instead
# Steps of which a file there shows that they were ever asked: build/backends/ram_openvino.
MAP_MODELS = [model.name for model in MODELS.values() if model.makes_maps]
SHORTEST = 0.1  # seconds
ROUNDS = 2  # of the last pictures: steps with several processes may overtake


def drain(
    api: Api, folder: Path, ensembles: list[str], seconds: float, is_over: Callable[[], bool]
) -> None:
    """Have new requests refused, and wait until those before are answered, or time is up.

    Queues are served in their order. So everything that waited before a picture was sent has been
    taken up when it is answered. Triton cannot report how many requests run; once told to stop it
    refuses the later steps of those.

    Args:
        api: the server.
        folder: where the models look for a file.
        ensembles: those that are served.
        seconds: the most that it may take.
        is_over: whether to give up.
    """
    deadline = time.monotonic() + seconds
    mark = secrets.token_bytes(MARK_BYTES)
    refused = base64.b64encode(mark)  # as the request has it

    def ask(model: str, until: float) -> None:
        outcome = Outcome.REFUSED  # by a full queue
        while outcome is Outcome.REFUSED and time.monotonic() < until and not is_over():
            left = max(until - time.monotonic(), SHORTEST)
            # Heat maps last, and come from a step that no request had to ask for.
            maps = any((folder / name).exists() for name in MAP_MODELS)
            outcome, _ = api.ask(model, left, picture(mark), maps)
            if outcome is Outcome.REFUSED:
                time.sleep(SHORTEST)

    def send(models: list[str], until: float = deadline) -> None:
        threads = ThreadPoolExecutor(len(models))
        running = {threads.submit(ask, model, until) for model in models}
        while running and time.monotonic() < until and not is_over():
            running = wait(running, timeout=0.1).not_done
        threads.shutdown(wait=False)  # what still waits ends with the server

    # A queue that is full of new requests may not take the picture before those are refused.
    send(ensembles, time.monotonic() + seconds / 3)
    own = [OWN_STEPS[model] for model in ensembles if model in OWN_STEPS]
    for step in own:
        (folder / step).write_bytes(refused)
    if own:
        send(ensembles)  # what ram_open's first step let through reaches the next
    (folder / FIRST_STEP).write_bytes(refused)
    for _ in range(ROUNDS):
        send([RAM, *(model for model in ensembles if model != RAM)])
