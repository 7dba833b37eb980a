"""`ram-bulk` and `s3://`, on a server that speaks S3.

It needs s3fs and moto[server], which require another python-dateutil than the project pins: put
them into a folder by `pip install --target`, and name it in PYTHONPATH.
"""

import io
import tarfile

import pyarrow
import pytest
from pyarrow import parquet
from support.bulk_runs import rows, run_here

BUCKET = "pictures"
CONTENTS = {f"{number:02}.png": b"picture %d" % number for number in range(12)}


@pytest.fixture(scope="module")
def bucket():
    """A bucket with pictures in folders, a shard, and parquet; returns s3fs's view of it."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in keys:
            patch.setenv(name, "us-east-1")
        yield filled(s3fs.S3FileSystem())
    server.stop()


def filled(files):
    files.mkdir(BUCKET)
    for number, (name, content) in enumerate(CONTENTS.items()):
        files.pipe(f"{BUCKET}/many/{'more/' * (number % 2)}{name}", content)
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as archive:
        for name, content in CONTENTS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    files.pipe(f"{BUCKET}/shards/0.tar", shard.getvalue())
    table = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": list(CONTENTS.values())}), table)
    files.pipe(f"{BUCKET}/shards/1.parquet", table.getvalue())
    return files


def test_folders_shards_parquet_and_patterns(bucket, transport_server, tmp_path):
    bucket.pipe(f"{BUCKET}/list.txt", f"s3://{BUCKET}/none.png\n".encode())
    names = ("many", "shards/*", "list.txt")
    arguments = [f"s3://{BUCKET}/{name}" for name in names]
    arguments += ["--server", transport_server.address, "-o", tmp_path / "out", "--shard-size", 5]
    done = run_here(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = [(row["source"], row["key"], row["error"]) for row in rows(tmp_path / "out")]
    *many, none = [row for row in found if "/shards/" not in row[0]]
    assert [key for _, key, _ in many] == [
        *[name for name in list(CONTENTS)[::2]],
        *[f"more/{name}" for name in list(CONTENTS)[1::2]],
    ]
    assert none[1:] == (f"s3://{BUCKET}/none.png", "No such file")
    assert [key for source, key, _ in found if source.endswith("0.tar")] == [
        name.removesuffix(".png") for name in CONTENTS
    ]
    assert [key for source, key, _ in found if source.endswith("1.parquet")] == [
        str(number) for number in range(len(CONTENTS))
    ]
    assert all(error is None for *_, error in found if error != "No such file")
    # Goes on, and refuses a shard that has changed.
    calls = transport_server.calls
    (tmp_path / "out" / "part-00001-000001.parquet").unlink()
    assert run_here(*arguments).returncode == 0
    assert transport_server.calls > calls
    (tmp_path / "out" / "part-00001-000001.parquet").unlink()
    bucket.pipe(f"{BUCKET}/shards/0.tar", b"another")
    bucket.clear_instance_cache()
    done = run_here(*arguments)
    assert done.returncode == 1
    assert f"s3://{BUCKET}/shards/0.tar has changed since the first run" in done.stderr


def test_what_is_missing_gets_a_line(bucket, transport_server, tmp_path):
    for name in ("nosuchbucket/many", f"{BUCKET}/nosuch/*", f"{BUCKET}/no.tar", f"{BUCKET}/no.png"):
        source = f"s3://{name}"
        done = run_here(source, "--server", transport_server.address, "-o", tmp_path / "out")
        assert done.returncode == 1, source
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"ram-bulk: {source}: "), line
