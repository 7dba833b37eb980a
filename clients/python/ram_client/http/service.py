"""Serving the application: what needs uvicorn."""

from ..serving import Server
from .app import create_app
from .settings import Settings

END_SECONDS = 30  # for what is being worked on


def make_server(settings: Settings) -> Server:
    """Return a server to be run with a socket; what is being worked on at its end is answered."""
    note = " (requests: {url}/docs)"
    return Server(create_app(settings), end_seconds=END_SECONDS, note=note)
