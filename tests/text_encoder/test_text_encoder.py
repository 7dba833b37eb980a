"""The text encoder: any names get labels, as transformers embeds them, once for each name."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc
from ram_triton.engines.tensorrt import RTX, Network, load_tensorrt
from ram_triton.repository.configs import EngineConfig, Shapes
from ram_triton.repository.layout import FACTS, PLAN
from ram_triton.server import TritonServer
from ram_triton.server_code import LabelText, Memory, pad, preprocess, sigmoid
from ram_triton.text_encoder.templates import ram_templates
from support import PATIENCE
from support.pipeline import copy_models, run_command
from support.requests_to_ram import ask, ask_open, runs, statistics, tags_of
from support.tiny_clip import save_for_open_clip, tiny_clip
from transformers import CLIPTokenizer
from tritonclient.utils import InferenceServerException

TOLERANCE = 1e-4
UNKNOWN = ["dragon", "Ice_Cream", "owl/bird", "phone"]


@pytest.fixture(scope="module")
def expected_embeds(clip_folder):
    """Names embedded by transformers alone, sentence by sentence."""
    model, tokenizer = tiny_clip(), CLIPTokenizer.from_pretrained(clip_folder)

    def embed(name):
        name = name.lower().replace("_", " ").replace("/", " or ")
        article = "an" if name[0] in "aeiou" else "a"
        means = []
        for template in ram_templates():
            tokens = tokenizer(template.format(name=name, a=article), return_tensors="pt")
            with torch.inference_mode():
                embeds = model(**tokens).text_embeds
            means.append(embeds / embeds.norm())
        mean = torch.cat(means).mean(0)
        return (mean / mean.norm()).numpy()

    return lambda names: np.stack([embed(name) for name in names])


@pytest.fixture(scope="module")
def open_repository(repository, clip_folder, tmp_path_factory):
    root = copy_models(repository, tmp_path_factory.mktemp("open") / "models")
    assert (
        run_command("text-encoder", ["--checkpoint", str(clip_folder), "--repository", str(root)])
        == 0
    )
    return root


@pytest.fixture(scope="module")
def open_server(open_repository):
    with TritonServer(open_repository) as server:
        yield server


@pytest.fixture(scope="module")
def open_client(open_server):
    with grpc.InferenceServerClient(open_server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def picture(picture_files):
    return picture_files[0].read_bytes()


@pytest.fixture(scope="module")
def encoder_inferences(open_server, open_client):
    """How many inferences the text encoder has made."""
    return lambda: statistics(open_server, open_client, "ram_open_text_encoder").inference_count


def test_a_name_is_spelt_and_gets_its_article_as_rams_labels_did(open_repository):
    text = LabelText.load(open_repository / "ram_open_text" / "1")
    assert "There is an ice cream in the scene." in text.sentences("Ice_Cream")
    assert "There is a salt or pepper in the scene." in text.sentences("salt/pepper.")


def test_padding_follows_the_tokens():
    ids, mask = pad([[5, 6, 7], [8]])
    assert (ids.tolist(), mask.tolist()) == ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])


def test_the_memory_keeps_the_last_used_names_and_asks_for_the_others():
    asked = []

    def embed(names):
        asked.append(names)
        return np.array([[len(name)] for name in names], np.float32)

    memory = Memory(3)
    assert memory.embed(["a", "bb"], embed).tolist() == [[1], [2]]
    assert memory.embed(["BB", "ccc", "a"], embed).tolist() == [[2], [3], [1]]
    memory.embed(["dddd"], embed)  # in place of bb, which was used the longest ago
    memory.embed(["a", "bb"], embed)
    assert asked == [["a", "bb"], ["ccc"], ["dddd"], ["bb"]]
    assert memory.embed(["1", "22", "333", "4444"], embed).shape == (4, 1), "more than it keeps"


def test_scores_are_those_of_transformers_embeddings(open_client, picture, model, expected_embeds):
    labels = [*UNKNOWN[:2], "tag 7", *UNKNOWN[2:]]
    embeds = expected_embeds(labels)
    embeds[2] = model.label_embed[7].detach()
    pixels = torch.from_numpy(preprocess(picture, model.variant.image_size).copy())
    with torch.inference_mode():
        logits = model.head(model.encoder(pixels[None]), torch.from_numpy(embeds))[0].numpy()
    outputs = ask_open(open_client, [picture], labels, threshold=0)
    answered = {name: (score, zh) for name, zh, score, _ in tags_of(outputs)}
    for name, logit in zip(labels, logits, strict=True):
        assert answered[name][0] == pytest.approx(sigmoid(logit), abs=TOLERANCE)
    known = dict(zip(outputs["tags"][0], outputs["known"][0], strict=True))
    assert {name.decode() for name in known if known[name]} == {"tag 7"}
    assert len({round(answered[name][0], 6) for name in UNKNOWN}) > 1, "the names make a difference"


def test_the_same_names_cost_the_text_encoder_nothing_again(open_server, open_client, picture):
    def answer(names):
        return ask_open(open_client, [picture], names, threshold=0)

    def embeds(ask_once):
        return runs(open_server, open_client, ["ram_open_text_encoder"], ask_once)

    numbers = itertools.count()
    assert embeds(lambda: answer([f"new thing {next(numbers)}"]))
    names = [f"thing {number}" for number in range(30)]
    first, again = answer(names), [name.upper() for name in names]
    assert not embeds(lambda: answer(again))
    assert answer(again)["scores"].tolist() == first["scores"].tolist()


def test_requests_with_many_new_names_hold_up_neither_known_nor_few_new_ones(
    open_client, picture, encoder_inferences
):
    before = encoder_inferences()
    answered = []
    with ThreadPoolExecutor(4) as threads:

        def send(who, labels):
            done = threads.submit(
                ask_open, open_client, [picture], labels, threshold=0, timeout=PATIENCE
            )
            done.add_done_callback(lambda _: answered.append(who))
            return done

        many = [send("many", [f"{animal} {n}" for n in range(250)]) for animal in ("newt", "toad")]
        while encoder_inferences() < before + 4:
            assert not answered
        few = [send("known", ["tag 1"]), send("few", ["axolotl"])]
        assert [done.result()["count"].item() for done in (*many, *few)] == [250, 250, 1, 1]
    assert set(answered[:2]) == {"known", "few"}


def test_more_new_names_than_the_limit_are_refused(open_client, picture):
    with pytest.raises(InferenceServerException) as refused:
        ask_open(open_client, [picture], ["tag 1", *(f"too many {n}" for n in range(1001))])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    message = (
        "labels: 1001 not in the vocabulary are over the limit of 1000 (max_new_labels): 'make"
    )
    assert message in refused.value.message()


def test_chinese_names_that_the_request_gives_are_answered(open_client, picture):
    outputs = ask_open(
        open_client, [picture], ["unicorn", "tag 2"], labels_zh=["独角兽", ""], threshold=0
    )
    names = {tag[0]: tag[1] for tag in tags_of(outputs)}
    assert names == {"unicorn": "独角兽", "tag 2": "标签2"}


def test_many_wrong_requests_among_good_ones_do_not_stop_the_server(open_client, picture):
    def send(index):
        labels, image = ["new", f"name {index}"], picture
        if index % 3 == 1:
            labels = ["New", "new"]
        elif index % 3 == 2:
            image = b"no image"
        try:
            return ask_open(open_client, [image], labels, threshold=0)["count"].item()
        except InferenceServerException as error:
            return error.status()

    expected = [2, "StatusCode.INVALID_ARGUMENT", "StatusCode.INVALID_ARGUMENT"] * 17
    assert [send(index) for index in range(51)] == expected
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(send, range(100, 151))) == (expected[1:] + expected[:1])


def test_ram_is_served_as_before(open_client, server, picture):
    with grpc.InferenceServerClient(server.grpc) as client:
        assert tags_of(ask(open_client, [picture])) == tags_of(ask(client, [picture]))


def test_tensorrts_parser_builds_the_encoder_for_the_shapes_of_its_config(open_repository):
    folder = open_repository / "ram_open_text_encoder"
    network = Network(load_tensorrt(RTX), folder / "1" / "model.onnx")
    config = EngineConfig.read(folder / "config.pbtxt")
    config.check(network.bindings)
    profile = config.profile(network.bindings)
    assert profile["input_ids"] == Shapes((1, 2), (128, 16), (128, 77))
    assert len(network.build(profile)[0]) > 1000


@pytest.mark.slow
def test_an_embedding_of_another_width_is_refused_by_the_inputs_name(
    open_repository, picture, tmp_path
):
    """What the build refuses; here the labels were exchanged for wider ones afterwards."""
    root = copy_models(open_repository, tmp_path / "models")
    path = root / "ram_open_labels" / "1" / "label_embeds.npy"
    np.save(path, np.concatenate([np.load(path)] * 2, axis=2))
    with TritonServer(root) as server, grpc.InferenceServerClient(server.grpc) as client:
        for labels, message in (
            (
                ["dragon"],
                "labels: the text encoder's embeddings have shape (1, 64), this model takes",
            ),
            (["tag 1", "tag 2"], "label_embeds: (2, 128), the model takes (?, 64)"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                ask_open(client, [picture], labels)
            assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
            assert message in refused.value.message() and "\n" not in refused.value.message()
        assert ask(client, [picture], threshold=0)["count"] == 40


def test_a_second_text_encoder_takes_the_firsts_place_and_edited_configs_stay(
    open_repository, tmp_path
):
    root = copy_models(open_repository, tmp_path / "models")
    config = root / "ram_open_text" / "config.pbtxt"
    config.write_text(config.read_text().replace("20000", "5"))
    plans = [root / "ram_open_text_encoder/1" / name for name in (PLAN, FACTS)]
    for plan in plans:
        plan.write_text("of the first")
    other = save_for_open_clip(tiny_clip("gelu"), tmp_path / "other")
    assert run_command("text-encoder", ["--checkpoint", str(other), "--repository", str(root)]) == 0
    assert '"5"' in config.read_text()
    assert '/other"' in (root / "ram_open_text/1/text_encoder.json").read_text()
    first, second = (r / "ram_open_text_encoder/1/model.onnx" for r in (open_repository, root))
    assert first.read_bytes() != second.read_bytes()
    assert not any(plan.exists() for plan in plans)
