import numpy as np
import pytest
import ram_client
from ram_client import Tag, errors, protocol
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor


def sent(request):
    """The request's inputs as they go over the wire: {name: (datatype, shape, bytes)}."""
    return {
        tensor.name(): (tensor.datatype(), list(tensor.shape()), tensor._get_content())
        for tensor in request["inputs"]
    }


def result_of(**outputs):
    """A response with these (datatype, shape, bytes) as tritonclient hands it over."""
    response = service_pb2.ModelInferResponse(model_name="ram")
    for name, (datatype, shape, content) in outputs.items():
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(content)
    return InferResult(response)


def texts(*names):
    return b"".join(len(name.encode()).to_bytes(4, "little") + name.encode() for name in names)


def test_a_plain_request_has_the_images_only():
    request = protocol.tag_request([b"one", b"two\0"])
    assert request["model_name"] == "ram"
    assert sent(request) == {"image": ("BYTES", [2, 1], b"\x03\0\0\0one\x04\0\0\0two\0")}


def test_it_names_the_outputs_it_wants():
    outputs = [output.name() for output in protocol.tag_request([b"x"])["outputs"]]
    assert outputs == ["tags", "tags_zh", "scores", "tag_ids", "count"]
    assert [output.name() for output in protocol.embedding_request([b"x"])["outputs"]] == [
        "embedding"
    ]


def test_settings_are_repeated_for_each_image():
    request = protocol.tag_request([b"1", b"2"], threshold=0.5, top_k=3, exclude=["cat", "狗"])
    inputs = sent(request)
    assert inputs["threshold"] == ("FP32", [2, 1], np.float32([0.5, 0.5]).tobytes())
    assert inputs["top_k"] == ("INT32", [2, 1], np.int32([3, 3]).tobytes())
    datatype, shape, content = inputs["exclude"]
    assert (datatype, shape) == ("BYTES", [2, 2])
    assert [name.decode() for name in deserialize_bytes_tensor(content)] == ["cat", "狗"] * 2


def test_labels_are_of_the_request_and_go_to_the_open_model():
    request = protocol.tag_request([b"1", b"2"], top_k=3, labels=["cat", "狗"])
    assert request["model_name"] == "ram_open"
    datatype, shape, content = sent(request)["labels"]
    assert (datatype, shape) == ("BYTES", [2])
    assert [name.decode() for name in deserialize_bytes_tensor(content)] == ["cat", "狗"]
    assert "known" in [output.name() for output in request["outputs"]]
    assert sent(protocol.tag_request([b"1"], labels=[]))["labels"][1] == [0]


def test_labels_with_names_to_exclude_are_refused():
    with pytest.raises(ram_client.InvalidRequest, match=r"^exclude: leave the names out"):
        protocol.tag_request([b"1"], labels=["cat", "dog"], exclude="dog")


def test_zero_is_a_setting():
    assert {"threshold", "top_k"} <= sent(protocol.tag_request([b"1"], threshold=0, top_k=0)).keys()


def test_nothing_to_exclude_is_not_sent():
    assert "exclude" not in sent(protocol.tag_request([b"1"], exclude=()))


def test_a_single_name_is_not_taken_for_its_letters():
    assert sent(protocol.tag_request([b"1"], exclude="cat"))["exclude"][1] == [1, 1]


@pytest.mark.parametrize(
    "setting",
    [
        {"top_k": 2**40},
        {"top_k": -(2**40)},
        *({name: [value]} for name in ("exclude", "labels") for value in ("\udcff", b"cat", 1)),
    ],
)
def test_what_no_tensor_can_hold_is_refused(setting):
    (name,) = setting
    with pytest.raises(ram_client.InvalidRequest, match=f"^{name}: "):
        protocol.tag_request([b"1"], **setting)


def test_rows_are_read_up_to_their_count():
    result = result_of(
        tags=("BYTES", [2, 2], texts("cat", "sofa", "dog", "")),
        tags_zh=("BYTES", [2, 2], texts("猫", "沙发", "狗", "")),
        scores=("FP32", [2, 2], np.float32([0.75, 0.5, 0.25, 0]).tobytes()),
        tag_ids=("INT32", [2, 2], np.int32([7, 9, 8, -1]).tobytes()),
        count=("INT32", [2, 1], np.int32([2, 1]).tobytes()),
    )
    assert protocol.read_tags(result) == [
        [Tag("cat", "猫", 0.75, 7), Tag("sofa", "沙发", 0.5, 9)],
        [Tag("dog", "狗", 0.25, 8)],
    ]


def test_an_image_may_have_no_tags():
    empty = ("BYTES", [1, 0], b"")
    result = result_of(
        tags=empty,
        tags_zh=empty,
        scores=("FP32", [1, 0], b""),
        tag_ids=("INT32", [1, 0], b""),
        count=("INT32", [1, 1], bytes(4)),
    )
    assert protocol.read_tags(result) == [[]]


def test_embeddings_can_be_written_to():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    embeddings = protocol.read_embeddings(result_of(embedding=("FP32", [2, 3], values.tobytes())))
    embeddings /= 2
    assert (embeddings == values / 2).all()


def test_a_missing_output_is_the_servers_error():
    with pytest.raises(ram_client.ServerError, match="embedding"):
        protocol.read_embeddings(result_of())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", ram_client.InvalidRequest),
        ("NOT_FOUND", ram_client.ModelNotFound),
        ("UNAVAILABLE", ram_client.Unavailable),
        ("DEADLINE_EXCEEDED", ram_client.Timeout),
        ("INTERNAL", ram_client.ServerError),
    ],
)
def test_each_status_has_its_exception(status, kind):
    error = InferenceServerException("text", status=f"StatusCode.{status}")
    translated = errors.from_triton(error, server="host:1", timeout=2)
    assert type(translated) is kind


def test_messages_lose_what_triton_puts_before_them():
    error = InferenceServerException(
        "in ensemble 'ram', [request id: <id_unknown>] image: empty",
        status="StatusCode.INVALID_ARGUMENT",
    )
    assert str(errors.from_triton(error, server="host:1", timeout=2)) == "image: empty"


def test_every_public_name_exists_and_every_exception_is_public():
    public = {name: getattr(ram_client, name) for name in ram_client.__all__}
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RamError)
    }
    assert kinds <= public.keys()


def outputs_of(request):
    return [output.name() for output in request["outputs"]]


def test_maps_are_asked_for_only_if_wanted():
    assert "maps" not in outputs_of(protocol.tag_request([b"1"]))
    assert outputs_of(protocol.tag_request([b"1"], where=True))[-1] == "maps"
    opened = protocol.tag_request([b"1"], labels=["cat"], where=True)
    assert opened["model_name"] == "ram_open" and "maps" in outputs_of(opened)


def test_each_tag_gets_its_own_map_and_those_beyond_the_servers_none():
    maps = np.arange(2 * 2 * 2, dtype=np.float32).reshape(1, 2, 2, 2)
    ((first, second, third),) = protocol.read_tags(
        result_of(
            tags=("BYTES", [1, 3], texts("a", "b", "c")),
            tags_zh=("BYTES", [1, 3], texts("", "", "")),
            scores=("FP32", [1, 3], np.float32([0.9, 0.8, 0.7]).tobytes()),
            tag_ids=("INT32", [1, 3], np.int32([4, 5, 6]).tobytes()),
            count=("INT32", [1, 1], np.int32([3]).tobytes()),
            maps=("FP32", [1, 2, 2, 2], maps.tobytes()),
        )
    )
    assert first.heatmap.tolist() == [[0, 1], [2, 3]] and second.heatmap.tolist() == [
        [4, 5],
        [6, 7],
    ]
    assert first.heatmap.flags.writeable and first.heatmap.dtype == np.float32
    assert third.heatmap is None and third.box is None
