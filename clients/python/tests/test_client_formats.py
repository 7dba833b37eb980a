"""Pictures of phones and cameras, decoded by the client, and pictures from the network."""

import io
import json
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import PIL.Image
import pytest
import tifffile
from ram_client import ImageUnreadable, cli, download, errors, formats
from ram_client.errors import installing
from ram_client.files import Url
from support import PATIENCE
from support.heic import HEIC


@pytest.fixture
def tag(server, capsys, tmp_path, monkeypatch):
    """Run the command in this process: its exit status, the files on stdout, stderr's lines."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = cli.main([*map(str, arguments), "--server", server.grpc, "--jsonl"])
        printed = capsys.readouterr()
        files = [json.loads(line)["file"] for line in printed.out.splitlines()]
        return status, files, printed.err.splitlines()

    return run


@pytest.fixture
def without(monkeypatch):
    """Hide packages, as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        formats._heif.cache_clear()
        formats.suffixes.cache_clear()

    yield hide
    formats._heif.cache_clear()
    formats.suffixes.cache_clear()


def write_dng(path, *, size=64, preview=None, orientation=1):
    """A raw file, as small as one can be: brighter to the right; its preview is a page before."""
    sensor = np.tile(np.arange(size, dtype=np.uint16) * (65535 // size), (size, 1))
    identity = [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "Test Camera", True),
        (271, "s", 0, "Test", True),
        (272, "s", 0, "Camera", True),
        (33421, "H", 2, (2, 2), True),  # the pattern of the sensor's colours
        (33422, "B", 4, (0, 1, 1, 2), True),
        (50717, "I", 1, 65535, True),  # white
        (50721, "2i", 9, identity, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (274, "H", 1, orientation, True),
    ]
    with tifffile.TiffWriter(path) as file:
        if preview is not None:
            file.write(preview, compression="jpeg", subfiletype=1, metadata=None)
        file.write(sensor, photometric=32803, extratags=tags, metadata=None)


def test_heic_is_decoded_whatever_its_name(tag, tmp_path):
    for name in ("a.heic", "b.jpg"):
        (tmp_path / name).write_bytes(HEIC)
    status, files, err = tag(tmp_path)
    assert (status, err) == (0, [])
    assert files == [str(tmp_path / "a.heic"), str(tmp_path / "b.jpg")]
    image = formats.load(tmp_path / "b.jpg")
    assert image.size == (64, 48)
    left, right = image.getpixel((2, 24))[2], image.getpixel((61, 24))[2]
    assert abs(left - right) < 40  # the third is the first upside down


def test_damaged_heic_is_one_line(tag, tmp_path):
    (tmp_path / "a.heic").write_bytes(HEIC[:200])
    status, _, err = tag(tmp_path)
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith(f"ram-tag: {tmp_path}/a.heic: the HEIC cannot be decoded: ")


def test_without_the_extra_heic_is_the_servers_to_read(tag, tmp_path, without):
    without("pi_heif", "pillow_heif", "rawpy")
    (tmp_path / "a.heic").write_bytes(HEIC)
    status, files, err = tag(tmp_path / "a.heic")
    assert (status, files, err) == (0, [str(tmp_path / "a.heic")], [])
    refused = "a:8001: image: this is HEIC; send JPEG, PNG"
    assert formats.hint(refused) == f" (decoded here after: {installing('heif')})"
    assert formats.hint("a:8001: image: this is SVG; send JPEG, PNG") == ""


def test_without_the_extra_the_line_names_it(tag, tmp_path, without):
    without("pi_heif", "pillow_heif", "rawpy")
    (tmp_path / "a.heic").write_bytes(HEIC)
    write_dng(tmp_path / "b.dng")
    status, _, err = tag(tmp_path)
    assert (status, len(err)) == (1, 1) and "no images in this folder" in err[0]
    status, _, err = tag(tmp_path / "b.dng")
    assert (status, len(err)) == (1, 1)
    assert err[0] == (
        f"ram-tag: {tmp_path}/b.dng: a camera's raw file (decoded here after: {installing('raw')})"
    )


@pytest.mark.parametrize(
    ("options", "package"), [(["--xmp"], "lxml"), (["--parquet", "t.parquet"], "pyarrow")]
)
def test_without_the_extra_of_a_format_nothing_is_sent(tag, tmp_path, without, options, package):
    without(package, "lxml.etree", "pyarrow.parquet")
    write_dng(tmp_path / "a.dng")
    status, files, err = tag(tmp_path / "a.dng", *options)
    assert (status, files) == (1, [])
    assert err[0].startswith(f"ram-tag: {options[0]} needs {package}: pip install '")


def test_an_extra_is_installed_by_a_name_that_pip_finds(monkeypatch):
    monkeypatch.setattr(errors, "distribution", lambda name: name)
    assert installing("raw") == "pip install 'ram-client[raw]'"

    def missing(name):
        raise errors.PackageNotFoundError(name)

    monkeypatch.setattr(errors, "distribution", missing)
    assert installing("raw") == "pip install './clients/python[raw]'"


def test_raw_files_are_developed(tag, tmp_path):
    write_dng(tmp_path / "a.dng")
    assert tag(tmp_path) == (0, [str(tmp_path / "a.dng")], [])
    image = formats.load(tmp_path / "a.dng")
    assert image.size == (32, 32)
    assert image.getpixel((2, 16))[1] < 80 < 180 < image.getpixel((29, 16))[1]


def test_a_turned_raw_file_is_turned_back(tmp_path):
    write_dng(tmp_path / "a.dng", orientation=6)  # the right of the sensor is below
    image = formats.load(tmp_path / "a.dng")
    assert image.getpixel((16, 2))[1] < 80 < 180 < image.getpixel((16, 29))[1]


@pytest.mark.parametrize("content", [b"", b"no raw file", b"II*\0\x08\0\0\0\0\0"])
def test_damaged_raw_files_are_one_line(tag, tmp_path, content):
    (tmp_path / "a.nef").write_bytes(content)
    status, _, err = tag(tmp_path)
    assert (status, len(err)) == (1, 1)
    assert err[0].startswith(f"ram-tag: {tmp_path}/a.nef: the raw file cannot be decoded: ")


class Preview:
    """What rawpy offers of a raw file with a preview."""

    class sizes:
        flip = 6

    def __init__(self, size, exif=None):
        buffer = io.BytesIO()
        gradient = PIL.Image.linear_gradient("L").resize(size)
        gradient.save(buffer, "JPEG", **({"exif": exif} if exif else {}))
        self.data = buffer.getvalue()

    def extract_thumb(self):
        import rawpy

        return rawpy.Thumbnail(rawpy.ThumbFormat.JPEG, self.data)


def test_a_preview_is_used_if_it_is_large_enough():
    import rawpy

    assert formats._preview(rawpy, Preview((383, 500))) is None
    turned = formats._preview(rawpy, Preview((500, 400)))
    assert turned.size == (400, 500)
    assert turned.getpixel((0, 0)) > 200 > 50 > turned.getpixel((399, 0))  # its top is at the right
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    own = Preview((500, 400), exif)
    assert formats._preview(rawpy, own) == own.data  # the server turns it


def test_large_pictures_fit_into_a_request():
    assert formats._fit(PIL.Image.new("RGB", (4032, 3024))).size == (2016, 1512)
    assert formats._fit(PIL.Image.new("RGB", (2000, 2000))).size == (2000, 2000)


@pytest.fixture
def web(photos, monkeypatch):
    """A web server on loopback: the address of a path."""
    monkeypatch.setenv("no_proxy", "*")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/silent":
                over.wait(timeout=PATIENCE)
            elif self.path == "/drips":
                with suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                    while not over.wait(timeout=0.05):
                        self.wfile.write(b"x")
            elif self.path.startswith("/to/"):
                self.answer(302, {"Location": self.path.removeprefix("/to/")})
            elif self.path == "/endless":
                self.answer(200, {})
                for _ in range(3):
                    self.wfile.write(bytes(500_000))
            elif self.path == "/short":
                self.answer(200, {"Content-Length": "1000"}, photos[0][:100])
            elif self.path == "/large":
                self.answer(200, {"Content-Length": str(10**12)})
            elif self.path == "/a.png?x=1":
                self.answer(200, {"Content-Length": str(len(photos[0]))}, photos[0])
            else:
                self.answer(404, {})

        def answer(self, status, headers, body=b""):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield lambda path: f"http://127.0.0.1:{server.server_port}{path}"
        over.set()
        server.shutdown()


def test_addresses_are_fetched_if_asked_for(tag, web, tmp_path):
    good, redirected, gone = web("/a.png?x=1"), web("/to/" + web("/a.png?x=1")), web("/gone")
    status, files, err = tag(good, redirected, gone, "--urls", "--csv", "tags.csv")
    assert (status, files) == (1, [good, redirected])
    assert err[0] == f"ram-tag: {gone}: HTTP 404 Not Found"
    assert good in (tmp_path / "tags.csv").read_text()
    status, files, err = tag(good, "--urls", "--txt")
    assert (status, files) == (1, [])
    assert err[0] == f"ram-tag: {good}: a picture from the network has no folder to write into"


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/large", "larger than 1 MiB (--max-megabytes)"),
        ("/endless", "larger than 1 MiB (--max-megabytes)"),
        ("/short", "the connection ended before the picture did"),
        ("/silent", "silent for 0.2 s"),
        (
            "/to/file:///etc/passwd",
            "HTTP 302 Found - Redirection to url 'file:///etc/passwd' is not",
        ),
        ("/to/ftp://127.0.0.1/a", "is redirected to something other than http or https"),
        ("/to//to//to//to//to//to//to/x", "HTTP 302 "),
    ],
)
async def test_what_an_address_must_not_do(web, monkeypatch, path, complaint):
    if path == "/silent":
        monkeypatch.setattr(download, "SILENCE", 0.2)
    with pytest.raises(ImageUnreadable) as raised:
        await download.fetch(Url(web(path)), megabytes=1, seconds=30)
    assert str(raised.value).startswith(f"{web(path)}: {complaint}")
    assert "\n" not in str(raised.value)


async def test_an_address_whose_answer_never_begins(web):
    with pytest.raises(ImageUnreadable, match=r"/drips: has not arrived within 0\.3 s$"):
        await download.fetch(Url(web("/drips")), megabytes=1, seconds=0.3)


async def test_a_redirect_from_the_internet_into_this_network(web, monkeypatch):
    monkeypatch.setattr(download, "_is_public", lambda url: "/to/" in url)
    with pytest.raises(ImageUnreadable, match="is redirected into your own network"):
        await download.fetch(Url(web("/to/" + web("/a.png?x=1"))), megabytes=1, seconds=30)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("http://127.0.0.1/", False),
        ("http://[::1]:80/", False),
        ("http://10.1.2.3/", False),
        ("http://169.254.169.254/", False),
        ("http://8.8.8.8/", True),
        ("http:///", False),
    ],
)
def test_which_addresses_are_on_the_internet(address, is_public):
    assert download._is_public(address) == is_public


async def test_a_host_that_does_not_exist_is_one_line():
    with pytest.raises(ImageUnreadable, match=r"^http://nowhere\.invalid/a\.jpg: \S"):
        await download.fetch(Url("http://nowhere.invalid/a.jpg"), megabytes=1, seconds=30)
