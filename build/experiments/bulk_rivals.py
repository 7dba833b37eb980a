"""What `experiments.bulk` runs beside ram-bulk: a closed loop of requests, or perf_analyzer."""

import argparse
import asyncio
import base64
import csv
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import grpc
from ram_client.protocol import TAG_OUTPUTS
from ram_triton.errors import LoadError
from ram_triton.server import TritonServer
from ram_triton.server.access import HEADER
from tritonclient.grpc import service_pb2 as pb

from experiments.bulk_shards import read_images

METHOD = "/inference.GRPCInferenceService/ModelInfer"
SENT_AGAIN = 16  # pictures that are sent in turn
MOST = 2000  # requests: more say no more of a rate
# perf_analyzer's libraries, of which the server's wheel has copies under other names.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


def other_rate(
    server: TritonServer, shards: list[Path], folder: Path, arguments: argparse.Namespace
) -> float:
    """Images per second that the other client reaches with the same images.

    folder: for files of perf_analyzer's.
    """
    count = min(arguments.images, MOST)
    images = list(islice(read_images(shards), SENT_AGAIN))
    if not arguments.perf_analyzer:
        return asyncio.run(closed_loop(server.grpc, images, count, arguments.concurrency))
    folder = folder.resolve()
    libraries = next(Path(sys.prefix).glob("lib/python3*/site-packages/nvidia_pytriton.libs"))
    for name, pattern in LIBRARIES.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(next(libraries.glob(pattern)))
    data = [
        {"image": {"b64": base64.b64encode(len(i).to_bytes(4, "little") + i).decode()}}
        for i in images
    ]
    (folder / "images.json").write_text(json.dumps({"data": data}))
    report = folder / "perf_analyzer.csv"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [
            *(arguments.perf_analyzer.resolve(), "-m", "ram", "-u", server.grpc, "-i", "grpc"),
            *("--concurrency-range", str(arguments.concurrency)),
            *("--input-data", folder / "images.json", "-f", report),
            *("--request-count", str(count)),
            *("-H", f"triton-grpc-protocol-{HEADER}:{server.key}"),
        ],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not report.exists():
        raise LoadError(f"perf_analyzer: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    with report.open(newline="") as lines:
        return float(next(csv.DictReader(lines))["Inferences/Second"])


async def closed_loop(address: str, images: list[bytes], count: int, concurrency: int) -> float:
    """Images per second of requests that were made before, and whose answers nobody reads."""
    requests = []
    for image in images:
        request = pb.ModelInferRequest(model_name="ram")
        request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        request.raw_input_contents.append(len(image).to_bytes(4, "little") + image)
        for name in TAG_OUTPUTS:
            request.outputs.add(name=name)
        requests.append(request.SerializeToString())
    left = iter(range(count))
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)

        async def use() -> None:
            for number in left:
                await call(requests[number % len(requests)])

        await call(requests[0])
        began = time.perf_counter()
        await asyncio.gather(*(use() for _ in range(concurrency)))
    return count / (time.perf_counter() - began)
