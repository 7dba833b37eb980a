"""Errors as the program that asked expects them: one line, with a status that says whose fault."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from .. import errors

PHOTOPRISM = "/api/v1/vision/"
WD14 = "/tagger/v1/"
RETRY_SECONDS = "1"
MESSAGE_LIMIT = 300  # characters

_log = logging.getLogger(__name__)

_STATUS: dict[type[errors.RamError], int] = {
    errors.InvalidRequest: 400,
    errors.ImageUnreadable: 400,
    errors.Unavailable: 503,
    errors.Timeout: 504,
}  # others are faults between here and Triton: 502


class Refused(Exception):
    """A request that is not worked on."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


def answer(
    scope: Scope, status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error in the format of the path that was asked for."""
    message = " ".join(message.split())[:MESSAGE_LIMIT]
    path, content = scope["path"], {}
    if path.startswith(PHOTOPRISM):
        if identity := scope.get("state", {}).get("id"):
            content["id"] = identity
        content |= {"code": status, "error": message, "result": {}}
    elif path.startswith(WD14):
        content["detail"] = message
    else:
        content["error"] = message
    headers = dict(headers or {})
    if status == 503:
        headers.setdefault("Retry-After", RETRY_SECONDS)
    return JSONResponse(content, status, headers)


def describe(error: ValidationError | RequestValidationError) -> str:
    """Return the first thing that is wrong with a body or a query, in one line."""
    first = error.errors()[0]
    kind, place = first["type"], ".".join(str(part) for part in first["loc"] if part != "query")
    place = place.removeprefix("body").removeprefix(".")
    if kind == "json_invalid":
        return f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}"
    if not place:
        return "the body is not a JSON object, sent as Content-Type: application/json"
    if kind == "extra_forbidden":
        return f"{place}: unknown field"
    if kind == "missing":
        return f"{place}: is missing"
    return f"{place}: {first['msg']}"


def handle(app: FastAPI) -> None:
    """Have an application answer its errors so."""

    @app.exception_handler(errors.RamError)
    async def of_the_client(request: Request, error: errors.RamError) -> JSONResponse:
        status = _STATUS.get(type(error), 502)
        if status >= 500:
            _log.warning("%s: %s", request.url.path, error)
        return answer(request.scope, status, str(error))

    @app.exception_handler(Refused)
    async def of_a_route(request: Request, error: Refused) -> JSONResponse:
        return answer(request.scope, error.status, str(error), error.headers)

    @app.exception_handler(ValidationError)
    @app.exception_handler(RequestValidationError)
    async def of_the_request(
        request: Request, error: ValidationError | RequestValidationError
    ) -> JSONResponse:
        return answer(request.scope, 400, describe(error))

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"{request.url.path} does not exist: /docs lists what does"
        return answer(request.scope, error.status_code, message, error.headers)

    @app.exception_handler(Exception)
    async def of_ours(request: Request, error: Exception) -> JSONResponse:
        return answer(request.scope, 500, "internal error: the log of ram-http has details")
