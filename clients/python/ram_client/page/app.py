"""The page: what is on it, what happens when it changes, and which of Gradio's routes are open."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from fastapi import FastAPI
from gradio import processing_utils, utils
from gradio.themes.utils import fonts
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..async_client import AsyncRamClient
from ..errors import RamError
from ..serving import Server
from .answer import EMPTY, ask, show, show_error

TITLE = "RAM"
MOST_TAGS = 100
EXAMPLES_PER_PAGE = 16
REQUESTS = 8  # to Triton at once
WAITING = 64  # requests of all visitors
CHECK_SECONDS, KEEP_SECONDS = 600, 3600  # dropped pictures are removed
FONTS = [fonts.Font(name) for name in ("system-ui", "sans-serif")]
MONOSPACED = [fonts.Font(name) for name in ("ui-monospace", "monospace")]
END_SECONDS = 1  # browsers hold connections open
CSS = (files(__package__) / "page.css").read_text()

_API = "/gradio_api/"
# The routes that the page needs, and none that fetches an address.
OPEN = (
    *("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/config"),
    *(_API + name for name in ("upload", "queue/", "run/", "heartbeat/", "cancel")),
    _API + "startup-events",
)
FILE = _API + "file="


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


async def _refuse_address(url: str, cache_dir: str) -> str:
    raise _refusal("addresses are not fetched: drop the picture itself")


# What a request names instead of a file that was dropped, Gradio would fetch.
processing_utils.async_ssrf_protected_download = _refuse_address


class _Picture(BaseModel):
    """A picture that was dropped, or is an example."""

    path: Annotated[Path, AfterValidator(Path.resolve)]

    def file(self) -> Path:
        """Return its path, which is in the folder where Gradio keeps both."""
        if not self.path.is_relative_to(Path(utils.get_upload_folder()).resolve()):
            raise _refusal(f"{self.path}: is not a picture that was dropped")
        return self.path


class _Settings(BaseModel):
    """What a visitor can set, and what is set at first."""

    model_config = ConfigDict(allow_inf_nan=False)

    own_thresholds: bool = True
    threshold: float = 0.5
    top_k: float = 0  # a slider's number
    labels: str = ""


def create_page(client: AsyncRamClient, examples: Sequence[Path]) -> gr.Blocks:
    """Return the page.

    client: connects at the first picture.
    examples: pictures that it offers.
    """

    async def tag(dropped: Any, *values: Any) -> str:
        if dropped is None:
            return EMPTY
        # What the browser has not loaded yet, or a number that was emptied, comes as null.
        pairs = zip(_Settings.model_fields, values, strict=False)
        given = {name: value for name, value in pairs if value is not None}
        try:
            picture, settings = _Picture.model_validate(dropped), _Settings.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
            raise _refusal(f"{fault['loc'][0]}: {fault['msg']}") from None
        names = [name for line in settings.labels.splitlines() if (name := line.strip())]
        try:
            answer = await ask(
                client,
                picture.file(),
                threshold=None if settings.own_thresholds else settings.threshold,
                top_k=int(settings.top_k),
                labels=names or None,
            )
        except RamError as error:
            return show_error(error)
        return show(answer)

    first = _Settings()
    page = gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(CHECK_SECONDS, KEEP_SECONDS)
    )
    with page:
        with gr.Row():
            with gr.Column(min_width=300):
                picture = gr.Image(
                    label="Picture",
                    type="filepath",
                    sources=["upload", "clipboard", "webcam"],
                    buttons=["fullscreen"],
                    height=360,
                    elem_id="picture",
                )
            with gr.Column(min_width=300):
                found = gr.HTML(EMPTY, label="Tags", elem_id="tags")
                own = gr.Checkbox(
                    first.own_thresholds, label="Each tag's own threshold", elem_id="own"
                )
                threshold = gr.Slider(
                    *(0, 1, first.threshold),
                    step=0.01,
                    label="Threshold",
                    interactive=not first.own_thresholds,
                    elem_id="threshold",
                )
                top_k = gr.Slider(
                    *(0, MOST_TAGS, first.top_k),
                    step=1,
                    label="At most this many (0: all)",
                    elem_id="top-k",
                )
                labels = gr.Textbox(
                    first.labels,
                    label="Own labels, one per line, instead of the model's",
                    lines=2,
                    elem_id="labels",
                )
                button = gr.Button("Tag", variant="primary")
        if examples:
            gr.Examples(
                [str(path) for path in examples],
                picture,
                examples_per_page=EXAMPLES_PER_PAGE,
                api_visibility="private",
            )
        own.change(
            lambda is_ticked: gr.update(interactive=not is_ticked),
            own,
            threshold,
            queue=False,
            api_visibility="private",
        )
        gr.on(
            [
                picture.change,
                own.change,
                threshold.release,
                top_k.release,
                labels.blur,
                button.click,
            ],
            tag,
            [picture, own, threshold, top_k, labels],
            found,
            preprocess=False,  # only Triton decodes the file
            show_progress="minimal",
            trigger_mode="always_last",
            concurrency_limit=REQUESTS,
            api_visibility="private",
        )
    page.queue(max_size=WAITING)
    return page


class Guard:
    """Lets requests for the page through, and answers 404 to others."""

    def __init__(self, app: ASGIApp) -> None:
        """Stands before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse("not found", 404)(scope, receive, send)


def _is_open(path: str) -> bool:
    if path.startswith(FILE):
        return path[len(FILE) :].startswith("/")  # an address would be fetched
    return path == "/" or path.startswith(OPEN)


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
        theme=gr.themes.Default(font=FONTS, font_mono=MONOSPACED),
        css=CSS,
    )
    page.has_launched = True  # or requests could name any file of this disk: Gradio looks only then
    return Server(Guard(app), end_seconds=END_SECONDS)
