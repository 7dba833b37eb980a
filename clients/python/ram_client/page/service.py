"""Serving the page: what needs Gradio and uvicorn."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from ..async_client import AsyncRamClient
from ..serving import Server
from .app import CSS, create_page, theme
from .guard import Guard

END_SECONDS = 1  # browsers hold connections open


def make_server(client: AsyncRamClient, examples: Sequence[Path], max_megabytes: float) -> Server:
    """Return a server to be run with a socket; see `create_page`.

    max_megabytes: the largest picture that may be dropped.
    """
    app = FastAPI(openapi_url=None)
    page = create_page(client, examples)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=round(max_megabytes * 2**20),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
    )
    page.has_launched = True  # or requests could name any file of this disk: Gradio looks only then
    return Server(Guard(app), end_seconds=END_SECONDS)
