"""Before the load: each picture is sent alone in each kind of request, and its answer kept."""

from collections.abc import Sequence

import numpy as np
from expected import Expected, ExpectedError
from pictures import Picture
from ram_client import RamError
from thresholds import find_thresholds
from traffic import Kind, Request
from transports import GrpcTransport
from tritonclient.grpc import InferenceServerClient


def rehearse(
    transport: GrpcTransport,
    pictures: list[Picture],
    broken: list[Picture],
    kinds: Sequence[Kind],
    tolerance: float,
) -> Expected:
    """Take the answers that later ones are compared with.

    Args:
        transport: to the server.
        pictures: to be answered.
        broken: to be refused.
        kinds: of requests.
        tolerance: how far a score may differ.

    Raises:
        ExpectedError: a picture is refused, a broken one is not, or answers contradict each other
            already now, without any load.
    """
    alone = [kind for kind in kinds if not kind.refused and kind.images == 1]
    every = {
        picture: _tag(transport, Request(Kind("threshold", {"threshold": 0.0}), [picture]))
        for picture in pictures
    }
    num_tags = 1 + max((tag.id for tags in every.values() for tag in tags), default=-1)
    with InferenceServerClient(transport.server) as triton:
        thresholds = find_thresholds(triton, num_tags) if num_tags else None
    expected = Expected(tolerance, thresholds, {}, {}, {})
    for picture, tags in every.items():
        scores = np.zeros(num_tags)
        scores[[tag.id for tag in tags]] = [tag.score for tag in tags]
        expected.scores[picture.sha256] = scores
        expected.names[picture.sha256] = picture.name
        requests = {kind.label: Request(kind, [picture]) for kind in alone}
        expected.answers[picture.sha256] = {
            label: _tag(transport, request) for label, request in requests.items()
        }
        for label, request in requests.items():
            answer = [expected.answers[picture.sha256][label]]
            if fault := expected.fault(request, answer):
                raise ExpectedError(f"the server contradicts itself before any load: {fault}")
    for kind in (kind for kind in kinds if kind.refused):
        for picture in broken:
            _require_refusal(transport, expected, Request(kind, [picture]))
    return expected


def _tag(transport: GrpcTransport, request: Request) -> list:
    (picture,) = request.pictures
    try:
        return transport.tag([picture.data], request.kind.settings)[0]
    except RamError as error:
        raise ExpectedError(
            f"{picture.name}, {request.kind.label}, before any load: {error}"
        ) from error


def _require_refusal(transport: GrpcTransport, expected: Expected, request: Request) -> None:
    (picture,) = request.pictures
    try:
        answer = transport.tag([picture.data])
    except RamError as error:
        answer = error
    fault = expected.fault(request, answer)
    if fault:
        raise ExpectedError(f"before any load, '{picture.name}': {fault}") from fault
