"""Before the load: each picture is sent alone in each kind of request, and its answer kept."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
from expected import Expected, ExpectedError
from pictures import Picture
from ram_client import RamError, Tag
from thresholds import find_thresholds
from traffic import Kind, Request
from transports import OPEN_MODEL, GrpcTransport
from tritonclient.grpc import InferenceServerClient


def rehearse(
    transport: GrpcTransport,
    pictures: list[Picture],
    broken: list[Picture],
    kinds: Sequence[Kind],
    tolerance: float,
    num_labels: int,
) -> Expected:
    """Take the answers that later ones are compared with.

    Args:
        transport: to the server.
        pictures: to be answered.
        broken: to be refused.
        kinds: of requests.
        tolerance: how far a score may differ.
        num_labels: how many labels a request brings that brings its own, if that is served: names
            of the vocabulary, in its order, so that a tag has the same id with and without.

    Raises:
        ExpectedError: a picture is refused, a broken one is not, or answers contradict each other
            already now, without any load.
    """
    alone = [kind for kind in kinds if not kind.refused and kind.images == 1]
    every = _all_tags(transport, pictures)
    expected = _answers(transport, every, alone, tolerance)
    num_tags = max(map(len, expected.scores.values()))
    with InferenceServerClient(transport.server) as triton:
        expected.thresholds = find_thresholds(triton, num_tags) if num_tags else None
        if num_labels and triton.is_model_ready(OPEN_MODEL):
            labels = _first_names(every, num_labels)
            every = _all_tags(transport, pictures, labels)
            expected.open = _answers(transport, every, [Kind("plain")], tolerance, labels)
            if expected.thresholds is not None:
                expected.open.thresholds = expected.thresholds[: len(labels)]
    for kind in (kind for kind in kinds if kind.refused):
        for picture in broken:
            _require_refusal(transport, expected, Request(kind, [picture]))
    return expected


def _all_tags(
    transport: GrpcTransport, pictures: list[Picture], labels: Sequence[str] = ()
) -> dict[Picture, list[Tag]]:
    """Ask for each picture's tags, however low their scores."""
    kind = Kind("threshold", {"threshold": 0.0}, labels)
    return {picture: _tag(transport, Request(kind, [picture])) for picture in pictures}


def _first_names(every: dict[Picture, list[Tag]], number: int) -> list[str]:
    """Return the names of the vocabulary's first tags, as far as any picture has them all."""
    names = {tag.id: tag.name for tags in every.values() for tag in tags}
    return [names[identity] for identity in takewhile(names.__contains__, range(number))]


def _answers(
    transport: GrpcTransport,
    every: dict[Picture, list[Tag]],
    kinds: Sequence[Kind],
    tolerance: float,
    labels: Sequence[str] = (),
) -> Expected:
    """Ask for the answers to these kinds of requests; `every` is what `_all_tags` returned."""
    num_tags = 1 + max((tag.id for tags in every.values() for tag in tags), default=-1)
    expected = Expected(tolerance, None, {}, {}, {}, labels)
    for picture, tags in every.items():
        scores = np.zeros(num_tags)
        scores[[tag.id for tag in tags]] = [tag.score for tag in tags]
        expected.scores[picture.sha256] = scores
        expected.names[picture.sha256] = picture.name
        expected.answers[picture.sha256] = {
            kind.label: _tag(transport, Request(replace(kind, labels=labels), [picture]))
            for kind in kinds
        }
        for kind in kinds:
            answer = [expected.answers[picture.sha256][kind.label]]
            if fault := expected.fault(Request(kind, [picture]), answer):
                raise ExpectedError(f"the server contradicts itself before any load: {fault}")
    return expected


def _tag(transport: GrpcTransport, request: Request) -> list:
    (picture,) = request.pictures
    try:
        return transport.tag([picture.data], request.kind.settings, request.kind.labels)[0]
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
