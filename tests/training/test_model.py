"""The model that is trained: its losses, its shared layers, and what it publishes."""

import copy

import pytest
import safetensors.torch
import torch
from ram_triton.errors import TextError
from ram_triton.model.checkpoint import load_model
from ram_triton.model.variant import Variant
from ram_triton.training.losses import CLASSIFICATION, TAGGING, asymmetric_loss, distillation_loss
from ram_triton.training.model import TrainingModel, published_state_dict
from ram_triton.training.starting_weights import from_scratch
from ram_triton.training.text import TextParts, Tokenizer

VARIANT = Variant(
    image_size=64,
    embed_dim=8,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 2, 4),
    image_width=12,
    label_width=20,
    num_tags=6,
    hidden_size=16,
    num_layers=2,
    intermediate_size=24,
)
VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] a picture of cat dog red the on mat | ##s"
WORDS = VOCABULARY.split()
TAGS = [["cat", "red mat"], ["dog"], []]
CAPTIONS = ["the cats on the mat", "a dog", None]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return Tokenizer(folder)


@pytest.fixture
def ram():
    torch.manual_seed(0)
    return from_scratch(VARIANT, torch.randn(VARIANT.num_tags, VARIANT.label_width))


@pytest.fixture
def model(ram, tokenizer):
    text = TextParts(VARIANT, ram.head, len(tokenizer), layers=3, heads=2, positions=40)
    return TrainingModel(ram, text).eval()


@pytest.fixture
def inputs(tokenizer):
    generator = torch.Generator().manual_seed(1)
    return {
        "pixels": torch.randint(256, (3, 64, 64, 3), dtype=torch.uint8, generator=generator),
        "targets": (torch.rand(3, VARIANT.num_tags, generator=generator) < 0.5).float(),
        "image_features": torch.randn(3, VARIANT.image_width, generator=generator),
        "text": tokenizer(TAGS, CAPTIONS),
    }


def test_text_is_tokenised_as_rams(tokenizer):
    text = tokenizer(TAGS, CAPTIONS)
    pad, dec, enc, sep = 0, len(WORDS), len(WORDS) + 1, WORDS.index("[SEP]")
    assert len(tokenizer) == len(WORDS) + 2
    word = WORDS.index
    cat_row = [enc, word("cat"), word("|"), word("red"), word("mat"), sep]
    assert text.tag_ids.tolist()[0] == cat_row
    assert text.tag_ids.tolist()[1] == [enc, word("dog"), sep, pad, pad, pad]
    assert text.tag_mask.sum(dim=1).tolist() == [6, 3, 2]
    dog_row = [dec, word("a"), word("picture"), word("of"), word("a"), word("dog"), sep]
    assert text.caption_ids[1, :7].tolist() == dog_row
    assert text.ignored[1].tolist() == [True] * 4 + [False] * 3 + [True] * 4
    assert text.ignored[2].all()
    assert tokenizer.decode(text.caption_ids[0]) == "a picture of the cats on the mat"


def test_long_texts_are_cut_to_40_tokens(tokenizer):
    text = tokenizer([["cat"] * 50], ["dog " * 50])
    assert text.tag_ids.shape == text.caption_ids.shape == (1, 40)


def test_a_vocabulary_that_is_not_a_berts_is_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.txt"):
        Tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("cat\ndog\n")
    with pytest.raises(TextError, match=r"vocab\.txt: is not a BERT vocabulary, it lacks \[PAD"):
        Tokenizer(tmp_path)


def test_every_input_brings_its_loss_and_none_is_missed(model, inputs):
    pixels, targets = inputs["pixels"], inputs["targets"]
    assert model(pixels, targets).losses.keys() == {"tagging"}
    features = model(pixels, targets, image_features=inputs["image_features"])
    assert features.losses.keys() == {"tagging", "distillation"}
    outputs = model(**inputs)
    assert outputs.losses.keys() == {"tagging", "distillation", "generation"}
    logits, mean_embed = model.ram(pixels), model.ram.encoder(pixels)[:, 0]
    torch.testing.assert_close(outputs.logits, logits)
    torch.testing.assert_close(outputs.losses["tagging"], asymmetric_loss(logits, targets))
    expected = distillation_loss(mean_embed, inputs["image_features"])
    torch.testing.assert_close(outputs.losses["distillation"], expected)


def test_a_classifier_in_place_of_the_head_trains_the_encoder_and_is_not_published(ram, inputs):
    model = TrainingModel(ram, objectives=[CLASSIFICATION]).eval()
    outputs = model(inputs["pixels"], inputs["targets"])
    outputs.losses.pop(CLASSIFICATION).backward()
    assert outputs.losses == {}
    torch.testing.assert_close(outputs.logits, model.tag(inputs["pixels"]))
    assert all(p.grad is not None for p in model.classifier.parameters())
    assert all(p.grad is None for p in model.ram.head.parameters())
    assert published_state_dict(model).keys() == published_state_dict(TrainingModel(ram)).keys()


def test_beside_a_classifier_the_head_is_trained_and_tags(ram, inputs):
    model = TrainingModel(ram, objectives=[CLASSIFICATION, TAGGING]).eval()
    outputs = model(inputs["pixels"], inputs["targets"])
    assert outputs.losses.keys() == {CLASSIFICATION, TAGGING}
    torch.testing.assert_close(outputs.logits, ram(inputs["pixels"]))
    torch.testing.assert_close(model.tag(inputs["pixels"]), ram(inputs["pixels"]))


def test_without_captions_no_text_parts_are_there_and_text_is_refused(ram, inputs):
    model = TrainingModel(ram)
    tops = {name.split(".")[0] for name in published_state_dict(model)}
    assert not tops & {"tag_encoder", "text_decoder"}
    with pytest.raises(ValueError, match="built without"):
        model(**inputs)


def test_every_trained_parameter_gets_a_gradient(model, inputs):
    sum(model(**inputs).losses.values()).backward()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.rpartition(".")[0].rpartition(".")[2] or name for name in frozen} == {
        "ram",
        "token_type_embeddings",
    }
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_the_tag_encoder_reads_the_image_and_both_ways_but_the_decoder_only_back(
    model, inputs, tokenizer
):
    image_embeds = model.ram.encoder(inputs["pixels"][:1])
    # Without padding transformers passes no mask, and attention falls back on its own causality.
    full = torch.ones(1, 6, dtype=torch.bool)
    tags = inputs["text"].tag_ids[:1]

    def encode(tag_ids, image_embeds):
        return model.text.tag_encoder(
            tag_ids, attention_mask=full, encoder_hidden_states=image_embeds
        ).last_hidden_state

    encoded = encode(tags, image_embeds)
    assert not torch.allclose(encode(tags, image_embeds + 1), encoded)
    changed = tags.clone()
    changed[0, -2] = WORDS.index("dog")
    assert not torch.allclose(encode(changed, image_embeds)[:, 0], encoded[:, 0])

    one = tokenizer([["cat"]], ["the cat"])
    another = tokenizer([["cat"]], ["the dog"])
    logits, others = model.text(image_embeds, one), model.text(image_embeds, another)
    place = (one.caption_ids[0] != another.caption_ids[0]).nonzero().item()
    torch.testing.assert_close(logits[:, :place], others[:, :place])
    assert not torch.allclose(logits[:, place:], others[:, place:])
    elsewhere = model.text(image_embeds, tokenizer([["dog"]], ["the cat"]))
    assert not torch.allclose(elsewhere, logits)


def test_padding_changes_nothing(model, inputs, tokenizer):
    image_embeds = model.ram.encoder(inputs["pixels"])
    together = model.text(image_embeds, inputs["text"])
    for row, (tags, caption) in enumerate(zip(TAGS, CAPTIONS, strict=True)):
        alone = model.text(image_embeds[row : row + 1], tokenizer([tags], [caption]))
        torch.testing.assert_close(together[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-5)


TIED = {
    "attention.query": "crossattention.self.query",
    "attention.key": "crossattention.self.key",
    "attention.value": "crossattention.self.value",
    "attention.output": "crossattention.output.dense",
    "attention_norm": "crossattention.output.LayerNorm",
    "expand": "intermediate.dense",
    "contract": "output.dense",
    "norm": "output.LayerNorm",
}


def require_tied(model):
    for number, tagging_layer in enumerate(model.ram.head.layers):
        layer = model.text.tag_encoder.encoder.layer[number]
        for ours, berts in TIED.items():
            first, second = tagging_layer.get_submodule(ours), layer.get_submodule(berts)
            assert first.weight is second.weight, ours
            assert first.bias is second.bias, ours
    decoder = model.text.text_decoder
    assert decoder.cls.predictions.decoder.weight is decoder.bert.embeddings.word_embeddings.weight


def test_tagging_head_and_tag_encoder_stay_one(model, inputs):
    require_tied(model)
    before = model.ram.head.layers[0].attention.key.weight.detach().clone()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(**inputs).losses["generation"].backward()
    optimiser.step()
    require_tied(model)
    assert not torch.equal(model.ram.head.layers[0].attention.key.weight, before)
    require_tied(copy.deepcopy(model))
    require_tied(model.to(torch.bfloat16).to(torch.float32))
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(model.state_dict())
    require_tied(fresh)
    torch.testing.assert_close(fresh(**inputs).losses, model(**inputs).losses)


def test_only_the_lowest_layers_are_shared(model):
    shared = {id(p) for p in model.ram.head.parameters()}
    layers = model.text.tag_encoder.encoder.layer
    assert not any(id(p) in shared for p in layers[2].parameters())
    assert not any(id(p) in shared for p in layers[0].attention.parameters())
    assert layers[2].crossattention.self.key.in_features == VARIANT.image_width


def test_a_tag_encoder_smaller_than_the_head_is_refused(ram):
    with pytest.raises(TextError, match="1 layers cannot share the tagging head's 2"):
        TextParts(VARIANT, ram.head, 20, layers=1, heads=2)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_published_loads_and_computes_the_same(model, inputs, tmp_path, suffix):
    weights, path = published_state_dict(model), tmp_path / f"ram{suffix}"
    if suffix == ".pth":
        torch.save({"model": weights}, path)
    else:
        safetensors.torch.save_file(weights, path)
    loaded = load_model(path)
    assert loaded.variant == VARIANT
    with torch.inference_mode():
        expected = model(inputs["pixels"], inputs["targets"]).logits
        torch.testing.assert_close(loaded(inputs["pixels"]), expected)


def test_published_names_are_the_references(model):
    weights = published_state_dict(model)
    layer = "encoder.layer.0.crossattention"
    for name in (
        f"tagging_head.{layer}.self.query.weight",
        f"tag_encoder.{layer}.self.query.weight",
        "tag_encoder.embeddings.word_embeddings.weight",
        "tag_encoder.encoder.layer.2.attention.output.LayerNorm.bias",
        f"text_decoder.bert.{layer}.output.dense.weight",
        "text_decoder.cls.predictions.transform.dense.weight",
        "text_decoder.cls.predictions.decoder.weight",
        "text_decoder.cls.predictions.bias",
    ):
        assert name in weights
    tops = {name.split(".")[0] for name in weights}
    assert tops == {
        "visual_encoder",
        "image_proj",
        "label_embed",
        "wordvec_proj",
        "tagging_head",
        "fc",
        "tag_encoder",
        "text_decoder",
    }
    assert not any("token_type" in name or "position_ids" in name for name in weights)


def test_what_was_published_does_not_change_with_further_training(model):
    weights = published_state_dict(model)
    with torch.no_grad():
        model.ram.head.classifier.bias.add_(1)
    assert weights["fc.bias"].item() == model.ram.head.classifier.bias.item() - 1


def test_it_trains_under_bfloat16_autocast(model, inputs):
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(**inputs).losses
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_few_steps_learn_the_batch(model, inputs):
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model(**inputs).losses
    for _ in range(30):
        losses = model(**inputs).losses
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert losses["tagging"] < 0.2 * first["tagging"]
    assert losses["distillation"] < 0.7 * first["distillation"]
    assert losses["generation"] < 0.6 * first["generation"]
