"""The end in order: new requests are refused, those that were there before are answered."""

import base64
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from ram_triton.server.api import MARK_BYTES, RAM, RAM_OPEN, Api, picture

# The steps that refuse while a file of their name is in the folder, and by which variable they find
# it: model_repository/ram_preprocess/1/draining.py.
VARIABLE = "RAM_DRAIN_FOLDER"
FIRST_STEP, OPEN_STEP = "ram_preprocess", "ram_open_labels"
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
    refused = base64.b64encode(mark)  # as it stands in the request

    def send(models: list[str]) -> None:
        threads = ThreadPoolExecutor(len(models))
        left = max(deadline - time.monotonic(), 0.1)
        running = {threads.submit(api.ask, model, left, picture(mark)) for model in models}
        while running and time.monotonic() < deadline and not is_over():
            running = wait(running, timeout=0.1).not_done
        threads.shutdown(wait=False)  # what still waits ends with the server

    send(ensembles)
    if RAM_OPEN in ensembles:
        (folder / OPEN_STEP).write_bytes(refused)
        send(ensembles)  # what ram_open's first step let through reaches the next
    (folder / FIRST_STEP).write_bytes(refused)
    for _ in range(ROUNDS):
        send([RAM, *(model for model in ensembles if model != RAM)])
