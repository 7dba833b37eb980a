"""`RamTagger` by itself, and the example on a local Ray cluster, with a worker that is killed."""

import io
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from ram_client import InvalidRequest, RamClient
from ram_client.bulk.errors import BulkError
from ram_client.ray import RamTagger
from support.bulk_runs import rows, run

PAGE = Path(__file__).parents[3] / "docs" / "bulk.md"
EXAMPLE, WITHOUT_A_SERVER = re.findall(
    r"```python\n((?:import os\n\n)?import ray\n.*?)```", PAGE.read_text(), re.S
)
TAGS = ("tags", "tags_zh", "scores", "ids")
# What each worker does: one of them is killed while it has its second batch.
MORTAL = """
import os, signal
from ram_client.ray import RamTagger as Tagger
class RamTagger(Tagger):
    batches = 0
    def __call__(self, batch):
        self.batches += 1
        if self.batches == 2:
            try:
                os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)
"""


def test_bytes_as_arrow(server, photos):
    tagger = RamTagger(server.grpc, embedding=True)
    batch = pyarrow.table({"name": ["a", "b", "c"], "image": [photos[0], b"none", photos[1]]})
    found = tagger(batch).to_pylist()
    assert [row["name"] for row in found] == ["a", "b", "c"]
    with RamClient(server.grpc) as client:
        for row, photo in ((found[0], photos[0]), (found[2], photos[1])):
            tags = client.tag(photo)
            assert row["tags"] == [tag.name for tag in tags]
            assert row["scores"] == pytest.approx([tag.score for tag in tags], abs=1e-4)
            assert row["embedding"] == pytest.approx(client.embed(photo).tolist(), abs=1e-3)
    assert found[1]["tags"] is None
    assert found[1]["error"].startswith("image")
    assert "image" not in found[0]
    assert tagger(batch).num_rows == 3, "the same connections serve the next batch"


def test_arrays_as_numpy(server, pictures):
    arrays = np.empty(2, object)
    arrays[:] = [np.asarray(picture) for picture in pictures[:2]]
    found = RamTagger(server.grpc)({"id": np.array([7, 8]), "image": arrays}).to_pylist()
    assert [row["id"] for row in found] == [7, 8]
    with RamClient(server.grpc) as client:
        assert [row["tags"] for row in found] == [
            [tag.name for tag in client.tag(picture)] for picture in pictures[:2]
        ]


def test_a_setting_that_is_wrong_is_not_a_rows_fault(server, photos):
    with pytest.raises(InvalidRequest, match="threshold"):
        RamTagger(server.grpc, threshold=2.0)({"image": [photos[0]]})


def test_a_worker_goes_on_after_a_batch_that_failed(transport_server, photos):
    """Ray gives it the next batch, or the same again."""
    tagger, batch = RamTagger(transport_server.address), {"image": [photos[0]]}
    transport_server.refusal = "the key is wrong"
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="the key is wrong"):
            tagger(batch)
    transport_server.refusal = ""
    assert tagger(batch).to_pylist()[0]["error"] is None


def test_each_batch_waits_for_a_server_for_as_long_as_it_should(unreachable, photos):
    tagger = RamTagger(unreachable, wait=1)
    for _ in range(2):
        begun = time.monotonic()
        with pytest.raises(BulkError, match="no server for 1 s"):
            tagger({"image": [photos[0]]})
        assert time.monotonic() - begun >= 1


@pytest.mark.slow
def test_the_examples_equal_ram_bulk_though_a_worker_is_killed(
    server, repository, tmp_path, picture_files
):
    pytest.importorskip("ray")
    contents = [file.read_bytes() for file in picture_files[:4]] * 10
    keys = [f"{number:03}" for number in range(len(contents))]
    parquet.write_table(
        pyarrow.table({"key": keys, "image": contents}),
        tmp_path / "images.parquet",
        row_group_size=5,
    )
    with tarfile.open(tmp_path / "images.tar", "w") as shard:
        for key, content in zip(keys, contents, strict=True):
            member = tarfile.TarInfo(f"{key}.png")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    done = run("images.parquet", "-o", "alone", "--server", server.grpc, cwd=tmp_path)
    assert done.returncode == 0
    marker = str(tmp_path / "killed")
    script = EXAMPLE.replace("from ram_client.ray import RamTagger\n", MORTAL.format(marker=marker))
    script = script.replace("localhost:8001", server.grpc)
    script += WITHOUT_A_SERVER.replace("model_repository", str(repository))
    # Logical processors: two workers, and one for what reads.
    start = "import ray\nray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script],
        cwd=tmp_path,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(marker).exists()
    alone = {row["key"]: row for row in rows(tmp_path / "alone")}
    folders = {"from_parquet": "key", "from_webdataset": "__key__", "from_engine": "key"}
    for folder, key in folders.items():
        found = rows(tmp_path / folder)
        assert sorted(row[key] for row in found) == keys
        for row in found:
            wanted = alone[row[key]]
            assert row["ids"] == wanted["ids"]
            assert row["scores"] == pytest.approx(wanted["scores"], abs=1e-4)
            assert row["error"] is None
