"""A real `ram-triton serve` whose processes are killed, stopped and hung: it comes back by itself.

Bounds of time are generous, because other tests run beside these; `-s` shows what was measured.
"""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import pytest
from ram_triton.processes import kill_all_with
from ram_triton.repository.layout import MODELS as TABLE
from ram_triton.server import LOOPBACK
from ram_triton.server.folder import PREFIX
from support.supervised import DEADLINE, ENSEMBLES, slow
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def image(picture_files):
    return picture_files[0].read_bytes()


class Load:
    """About 40 requests per second, of four kinds, and what became of them."""

    KINDS = (("ram", None), ("ram", ("embedding",)), ("ram_open", None), ("ram_pixels", None))

    def __init__(self, served, image):
        self.answers = defaultdict(list)  # by kind: (status, seconds)
        self._served, self._image, self._over = served, image, Event()

    def __enter__(self):
        self._threads = [Thread(target=self._send, args=(kind,)) for kind in self.KINDS * 2]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, kind):
        model, outputs = kind
        while not self._over.wait(0.2):
            start = time.monotonic()
            status = self._served.ask(model, [self._image], outputs=outputs)
            self.answers[kind].append((status, time.monotonic() - start))

    def failed(self, kind):
        return [status for status, _ in self.answers[kind] if status != "OK"]


def is_needed(model, kind):
    """Whether a request of a kind passes through a model."""
    ensemble, outputs = kind
    if model in ("ram_head", "ram_postprocess") and outputs == ("embedding",):
        return False
    return model in TABLE[ensemble].steps


@pytest.mark.parametrize(
    "model",
    [
        *("ram_preprocess", "ram_encoder", "ram_postprocess", "ram_open_labels"),
        *(slow("ram_head"), slow("ram_open_head"), slow("ram_open_postprocess")),
        slow("ram_pixels_check"),
    ],
)
def test_a_killed_process_of_a_model_is_replaced_and_nobody_else_notices(served, image, model):
    before, server = served.changes(), served.server
    instances = served.stubs(model)
    with Load(served, image) as load:
        os.kill(instances[0].id, signal.SIGKILL)
        seconds = served.wait_until_whole(before + 1)
        statuses = [served.ask(ensemble, [image]) for ensemble in ENSEMBLES]
    print(f"{model}: whole after {seconds:.1f} s")
    assert served.server == server, f"the whole server was started again: {served.lines[-5:]}"
    assert statuses == ["OK"] * len(ENSEMBLES)
    assert len(set(served.stubs(model)) - set(instances)) == len(instances)
    for kind, answers in load.answers.items():
        assert max(seconds for _, seconds in answers) < DEADLINE
        if not is_needed(model, kind):
            assert load.failed(kind) == [], kind
    told = f"process {instances[0].id} of {model} died: {model} was loaded again"
    assert served.wait_for(lambda: told in "".join(served.lines), DEADLINE)


def test_a_process_that_is_stopped_is_replaced(served, image):
    before = served.changes()
    os.kill(served.stubs("ram_head")[-1].id, signal.SIGSTOP)
    served.wait_until_whole(before + 1)
    assert served.ask("ram", [image]) == "OK"


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGSEGV), slow(signal.SIGSTOP)])
def test_a_dead_server_starts_again_and_nothing_of_the_old_is_left(served, image, number):
    before, server = served.changes(), served.server
    (folder,) = served.folder.glob(f"{PREFIX}*")
    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(served.ask, "ram", [image] * 8) for _ in range(8)]
        os.kill(server, number)
        seconds = served.wait_until_whole(before + 1)
        statuses = {future.result() for future in running}
    print(f"tritonserver, {number.name}: whole after {seconds:.1f} s")
    assert "DEADLINE_EXCEEDED" not in statuses
    assert served.answers([image])
    assert served.server != server
    assert not folder.exists()
    assert list(Path("/dev/shm").glob(f"{folder.name}-*")) == []
    assert kill_all_with(folder.name) == []


def test_it_ends_in_order_requests_in_flight_are_answered_and_new_ones_refused(served, image):
    """Triton itself fails nearly all of them: it refuses the later steps of an ensemble."""
    with ThreadPoolExecutor(32) as threads:
        before = len(served.asked)
        running = [threads.submit(served.ask, "ram", [image] * 4, 120) for _ in range(24)]
        for model in ("ram_open", "ram_pixels"):
            running += [threads.submit(served.ask, model, [image], 120) for _ in range(4)]
        while len(served.asked) < before + 32 or not any(future.done() for future in running):
            time.sleep(0.01)
        served.process.send_signal(signal.SIGTERM)
        late = {"ram": "", "ram_pixels": ""}
        while served.process.poll() is None:
            for model in late:
                late[model] += f"{served.ask(model, [image], 120)} "
            time.sleep(0.02)
        statuses = [future.result() for future in running]
    assert statuses == ["OK"] * 32
    for answers in late.values():  # none is accepted after the first that was refused
        assert re.fullmatch("(OK )*(UNAVAILABLE )*", answers)
    assert served.process.returncode == 0
    assert list(served.folder.glob(f"{PREFIX}*")) == []


def get(served, path, headers=None):
    url = f"http://{LOOPBACK}:{served.ports.http}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, None, headers or {})) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_inner_apis_ask_for_the_key_and_what_clients_need_does_not(served):
    key = served.folder / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    headers = {"ram-triton-key": key.read_text().strip()}
    closed = [f"/v2/{api}" for api in ("models/stats", "logging", "trace/setting")]
    closed.append("/v2/systemsharedmemory/status")
    assert [get(served, path) for path in closed] == [403] * len(closed)
    assert [get(served, path, headers) for path in closed] == [200] * len(closed)
    for ask in (
        served.client.get_inference_statistics,
        served.client.get_model_repository_index,
        served.client.get_system_shared_memory_status,
        served.client.get_log_settings,
        lambda: served.client.load_model("ram_head"),
        lambda: served.client.unload_model("ram_head"),
        lambda: served.client.register_system_shared_memory("x", "/x", 8),
    ):
        with pytest.raises(InferenceServerException, match="This protocol is restricted"):
            ask()
    assert [get(served, path) for path in ("/v2", "/v2/models/ram/config")] == [200, 200]


def test_the_health_endpoint_counts_and_a_full_disk_stops_nothing(served, image):
    """Triton's log of this server is /dev/full."""
    url = f"http://{LOOPBACK}:{served.ports.health}"
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        metrics = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
    assert metrics["ram_ready"] == "1"
    assert int(metrics["ram_log_lines_dropped_total"]) > 50
    assert served.health()[1]["log_lines_dropped"] > 50
    assert served.ask("ram", [image]) == "OK"
