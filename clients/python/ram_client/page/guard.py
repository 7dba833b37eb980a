"""What of Gradio's routes is open: those that the page needs, and none that fetches an address."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_API = "/gradio_api/"
OPEN = (
    *("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/config"),
    *(_API + name for name in ("upload", "queue/", "run/", "heartbeat/", "cancel")),
    _API + "startup-events",
)
FILE = _API + "file="


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
