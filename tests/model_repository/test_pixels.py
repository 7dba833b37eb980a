"""The served ensemble `ram_pixels`: pictures that come as pixels."""

import threading

import numpy as np
import pytest
import tritonclient.grpc as grpc
from ram_triton.server_code import preprocess
from support import PATIENCE
from support.requests_to_ram import ask, infer_inputs, statistics, tags_of
from tritonclient.utils import InferenceServerException

SIZE = 96  # of the tiny model
SHAPE = r"unexpected shape for input 'pixels' .* Expected \[-1,96,96,3\], got "


@pytest.fixture(scope="module")
def pixels(pictures):
    return np.stack([preprocess(image, SIZE) for image in pictures])


def test_pixels_are_answered_as_the_images_that_they_are_of(client, pictures, pixels):
    for outputs in (("logits",), ("embedding",), ("tags", "tags_zh", "scores", "tag_ids", "count")):
        of_images, of_pixels = (
            ask(client, each[:1], outputs=outputs) for each in (pictures, pixels)
        )
        for name in outputs:
            np.testing.assert_array_equal(of_images[name], of_pixels[name])
    together = ask(client, pixels, outputs=("logits",))["logits"]
    np.testing.assert_allclose(together, ask(client, pictures, ("logits",))["logits"], atol=1e-5)


def test_options_are_applied(client, pictures, pixels):
    options = {"threshold": 0.0005, "top_k": 6, "exclude": ["tag 3", "标签5"]}
    answered = tags_of(ask(client, pixels[:1], **options))
    assert answered == tags_of(ask(client, pictures[:1], **options))
    assert len(answered) == 6


def test_clients_can_ask_for_the_size(client):
    metadata = client.get_model_metadata("ram_pixels_check")
    assert [list(entry.shape) for entry in metadata.inputs] == [[-1, SIZE, SIZE, 3]]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((1, 50, 60, 3), np.uint8, SHAPE + r"\[1,50,60,3\]"),
        ((1, 3, SIZE, SIZE), np.uint8, r"Expected \[-1,-1,-1,3\], got \[1,3,96,96\]"),
        ((2, SIZE, SIZE, 4), np.uint8, r"Expected \[-1,-1,-1,3\], got \[2,96,96,4\]"),
        ((1, 0, 0, 3), np.uint8, SHAPE + r"\[1,0,0,3\]"),
        ((33, SIZE, SIZE, 3), np.uint8, "batch-size must be <= 32"),
        ((SIZE, SIZE, 3), np.uint8, "batch-size must be <= 32"),
        ((1, SIZE, SIZE), np.uint8, r"unexpected shape .*got \[1,96,96\]"),
        ((0, SIZE, SIZE, 3), np.uint8, "input byte size mismatch"),
        ((1, SIZE, SIZE, 3), np.float32, "data-type is 'FP32'.* expects 'UINT8'"),
    ],
    ids=str,
)
def test_what_the_model_does_not_take_is_refused_in_a_line(client, pixels, shape, dtype, message):
    tensor = grpc.InferInput("pixels", list(shape), "UINT8" if dtype is np.uint8 else "FP32")
    tensor.set_data_from_numpy(np.zeros(shape, dtype))
    with pytest.raises(InferenceServerException, match=message) as refused:
        client.infer("ram_pixels", [tensor], client_timeout=PATIENCE)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "\n" not in refused.value.message()
    assert tags_of(ask(client, pixels[:1]))


@pytest.mark.parametrize("shape", [[1, 2**62, 4, 3], [1, 2**32, 2**32, 3], [2, 2**32, 2**31, 3]])
def test_a_shape_whose_product_overflows_ends_no_process(server, client, pixels, shape):
    request = grpc.service_pb2.ModelInferRequest(model_name="ram_pixels")
    request.inputs.add(name="pixels", datatype="UINT8", shape=shape)
    request.raw_input_contents.append(b"")
    with pytest.raises(Exception, match=r"Expected \[-1,96,96,3\]"):
        client._client_stub.ModelInfer(request, timeout=PATIENCE)
    assert tags_of(ask(client, pixels[:1]))


def test_a_mistyped_option_is_refused_by_its_name(client, pixels):
    inputs = infer_inputs(pixels[:1])
    with pytest.raises(InferenceServerException, match="did you mean 'threshold'"):
        client.infer("ram_pixels", inputs, parameters={"treshold": "0.9"})


def test_the_encoder_joins_pixels_with_encoded_images(server, client, pictures, pixels):
    """While a full batch is encoded one of each kind may come: they are then encoded together."""

    def executions():
        return statistics(server, client, "ram_encoder").execution_count

    full = np.repeat(pixels[:1], 32, axis=0)
    requests = (("ram_pixels", full), ("ram_pixels", pixels[:1]), ("ram", pictures[:1]))
    for _ in range(1000):
        before, done, errors = executions(), threading.Semaphore(0), []

        def keep(result, error, done=done, errors=errors):
            errors.append(error)
            done.release()

        for model, given in requests:
            client.async_infer(model, infer_inputs(given), keep, client_timeout=PATIENCE)
        assert all(done.acquire(timeout=PATIENCE) for _ in requests)
        assert errors == [None] * 3
        if executions() - before == 2:
            return
    raise AssertionError("never joined")
