"""The HTTP adaptor on a free port, and requests to it."""

import socket
from threading import Thread

import requests
from ram_client.http.app import make_server
from ram_client.http.settings import Settings

SECONDS = 60.0  # generous, on a busy machine


class Adaptor:
    """A real uvicorn in a thread of this process; `url` is its address."""

    def __init__(self, **settings):
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*listening.getsockname())
        self._server = make_server(Settings(**settings))
        self._thread = Thread(target=self._server.run, args=([listening],))
        self._thread.start()

    def post(self, path, **arguments):
        return requests.post(self.url + path, **{"timeout": SECONDS} | arguments)

    def get(self, path, **arguments):
        return requests.get(self.url + path, timeout=SECONDS, **arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()
