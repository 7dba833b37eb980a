"""A server that hangs is started again; one that cannot be brought back ends with a status."""

import time

import pytest
from support.supervised import Served

HANG = """import time
from pathlib import Path

while Path({marker!r}).exists():
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_model_that_hangs_and_then_one_that_cannot_start_again(copied, tmp_path, picture_files):
    marker, image = tmp_path / "hang", picture_files[0].read_bytes()
    code = copied / "ram_postprocess" / "1" / "model.py"
    hang = HANG.format(marker=str(marker)).replace("\n", "\n        ").rstrip()
    text = code.read_text()
    spot = '        """Return the tags of one request\'s images."""\n'
    assert spot in text
    code.write_text(text.replace(spot, f"{spot}        {hang}\n"))
    served = Served(copied, tmp_path, "--attempts", "2", "--log", tmp_path / "triton.log")
    try:
        served.wait_for_start()
        server = served.server
        marker.touch()
        assert served.wait_for(lambda: served.health()[1]["restarts"] == 1, 300)
        marker.unlink()
        served.wait_until_whole(1)
        assert served.server != server
        assert served.ask("ram", [image]) == "OK"
        assert "ram does not answer" in "".join(served.lines)
        (copied / "ram_postprocess" / "1" / "vocabulary.json").write_text("no JSON")
        begin = time.monotonic()
        served.kill_server()
        status = served.process.wait(180)
        print(f"gave up after {time.monotonic() - begin:.1f} s")
        error = served.process.stderr.read()
    finally:
        served.end()
    assert status == 1
    assert error.startswith("ram-triton serve: tritonserver did not start: failed to load")
    assert "gave up after 2 restarts in a row" in error and error.count("\n") == 1
