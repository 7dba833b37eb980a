"""A real `ram-triton serve`, to be harmed: tests share it, since it brings itself back."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import tritonclient.grpc as grpc
from ram_triton.processes import children, command_line, stubs
from ram_triton.server import LOOPBACK, Ports
from ram_triton.server.folder import PREFIX, ServerFolder
from ram_triton.server_code import preprocess
from tritonclient.utils import InferenceServerException

from support.requests_to_ram import infer_inputs, open_inputs

ROOT = Path(__file__).parents[2]
READY = "Ctrl-C stops the server.\n"
WHOLE = 180.0  # seconds, on a busy machine
DEADLINE = 30.0  # seconds of a request
ENSEMBLES = ("ram", "ram_open", "ram_pixels")


def slow(value):
    """Mark a case that `make test-slow` tries."""
    return pytest.param(value, marks=pytest.mark.slow)


class Served:
    """A `ram-triton serve`, its lines, and its clients."""

    def __init__(self, repository, folder, *options):
        self.ports = Ports.free()
        self.folder = folder
        arguments = [f"--{kind}-port={number}" for kind, number in vars(self.ports).items()]
        arguments += ["--key-file", folder / "key"]
        command = [sys.executable, "-m", "ram_triton", "serve", "--repository", repository]
        self.process = subprocess.Popen(
            [*command, *arguments, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder)},
        )
        self.lines = []
        self.asked = []  # a model's name per request, from the moment it is sent
        self.client = grpc.InferenceServerClient(f"{LOOPBACK}:{self.ports.grpc}")

    def wait_for_start(self):
        for line in self.process.stdout:
            if line == READY:
                break
            self.lines.append(line)
        else:
            raise AssertionError(self.process.stderr.read())
        self._reader = Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._reader.start()
        return self

    @property
    def server(self):
        (server,) = (
            child
            for child in children(self.process.pid)
            if command_line(child)[:1] and command_line(child)[0].endswith(b"tritonserver")
        )
        return server

    def stubs(self, model=None):
        return [stub for stub in stubs(self.server) if model in (None, stub.model)]

    def health(self):
        try:
            url = f"http://{LOOPBACK}:{self.ports.health}/health/ready"
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait_until_whole(self, changes):
        """Wait until it is ready after a number of reloads and restarts; returns the seconds."""
        start = time.monotonic()
        while time.monotonic() - start < WHOLE:
            with contextlib.suppress(OSError):  # one that takes too long is not whole either
                status, state = self.health()
                if status == 200 and state["restarts"] + sum(state["reloads"].values()) >= changes:
                    return time.monotonic() - start
            time.sleep(0.05)
        raise AssertionError(f"not whole after {WHOLE:.0f} s: {self.health()}, {self.lines}")

    def answers(self, images):
        """Whether all ensembles answer; a channel whose server was killed waits to connect."""
        return self.wait_for(lambda: all(self.ask(e, images) == "OK" for e in ENSEMBLES), WHOLE)

    def kill_server(self):
        os.kill(self.server, signal.SIGKILL)

    def wait_for(self, happens, seconds):
        """Wait until something happens, or has not within seconds; returns whether it did."""
        start = time.monotonic()
        while not (happened := happens()) and time.monotonic() - start < seconds:
            time.sleep(0.02)
        return happened

    def changes(self):
        _, state = self.health()
        return state["restarts"] + sum(state["reloads"].values())

    def ask(self, model, images, timeout=DEADLINE, outputs=None):
        if model == "ram_pixels":
            images = np.stack([preprocess(image, 96) for image in images])
        inputs = open_inputs(images, ["tag 1"]) if model == "ram_open" else infer_inputs(images)
        requested = outputs and [grpc.InferRequestedOutput(name) for name in outputs]
        self.asked.append(model)
        try:
            self.client.infer(model, inputs, outputs=requested, client_timeout=timeout)
        except InferenceServerException as error:
            return error.status().removeprefix("StatusCode.")
        return "OK"

    def end(self):
        self.client.close()
        self.process.kill()
        self.process.communicate()
        for folder in self.folder.glob(f"{PREFIX}*"):
            ServerFolder(folder).remove()


@pytest.fixture(scope="session")
def supervised(repository, tmp_path_factory):
    """The server that is shared, in a list; empty before the first test."""
    running = []
    yield running
    for each in running:
        each.end()


@pytest.fixture
def served(repository, supervised, tmp_path_factory):
    """A supervised server that is whole; its log is a full disk."""
    if not supervised or supervised[-1].process.poll() is not None:
        folder = tmp_path_factory.mktemp("served")
        # Each test may have it restarted soon after another did.
        options = ("--log", "/dev/full", "--grace", "120", "--attempts", "100")
        supervised.append(Served(repository, folder, *options))
        supervised[-1].wait_for_start()
    supervised[-1].wait_until_whole(0)
    return supervised[-1]
