"""The three losses against loops over plain numbers, and their gradients against differences."""

import math

import pytest
import torch
from ram_triton.training.losses import (
    asymmetric_loss,
    classification_loss,
    distillation_loss,
    generation_loss,
    total_loss,
)


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def paper_asymmetric(logits, targets, gamma_negative, gamma_positive, clip, weighted_by=None):
    """Equation by equation; focusing weights may come from other (constant) logits."""
    total = 0.0
    for row, target_row, weight_row in zip(logits, targets, weighted_by or logits, strict=True):
        for logit, target, weight_logit in zip(row, target_row, weight_row, strict=True):
            if target:
                total -= (1 - sigmoid(weight_logit)) ** gamma_positive * math.log(sigmoid(logit))
            else:
                shifted = max(sigmoid(logit) - clip, 0)
                focus = max(sigmoid(weight_logit) - clip, 0) ** gamma_negative
                total -= focus * math.log(1 - shifted)
    return total / len(logits)


SETTINGS = [(7, 0, 0.05), (4, 1, 0.05), (0, 0, 0.0), (2, 3, 0.0), (7, 0, 0.3)]


@pytest.fixture
def tagging():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 9, generator=generator, dtype=torch.float64) * 3
    return logits, (torch.rand(4, 9, generator=generator) < 0.3).float()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_asymmetric_loss_is_the_papers(tagging, settings):
    logits, targets = tagging
    expected = paper_asymmetric(logits.tolist(), targets.tolist(), *settings)
    assert asymmetric_loss(logits, targets, *settings).item() == pytest.approx(expected, rel=1e-5)


def test_the_defaults_are_rams(tagging):
    expected = paper_asymmetric(*(table.tolist() for table in tagging), 7, 0, 0.05)
    assert asymmetric_loss(*tagging).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", SETTINGS)
def test_its_gradient_leaves_the_focusing_weights_constant(tagging, settings):
    logits, targets = tagging[0].requires_grad_(), tagging[1]
    asymmetric_loss(logits, targets, *settings).backward()
    step, rows = 1e-6, logits.tolist()
    for row in range(len(rows)):
        for column in range(len(rows[0])):
            losses = []
            for change in (step, -step):
                moved = [list(one) for one in rows]
                moved[row][column] += change
                losses.append(paper_asymmetric(moved, targets.tolist(), *settings, rows))
            expected = (losses[0] - losses[1]) / (2 * step)
            assert logits.grad[row, column].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_an_easy_negative_costs_nothing_and_a_lost_positive_still_learns():
    logits = torch.tensor([[-4.0, -40.0]], requires_grad=True)  # sigmoid(-4) < 0.05
    loss = asymmetric_loss(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(40)
    assert logits.grad.tolist() == [[0, -1]]


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_extreme_logits_stay_finite(clip):
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), clip=clip)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_tagging_loss_does_not_depend_on_the_size_of_the_batch(tagging):
    twice = [torch.cat([table, table]) for table in tagging]
    assert asymmetric_loss(*twice).item() == pytest.approx(asymmetric_loss(*tagging).item())


def test_distillation_is_the_mean_absolute_difference_over_images_with_a_feature():
    mean_embed = torch.tensor([[1.0, 2.0], [0.0, 4.0], [5.0, 5.0]], requires_grad=True)
    feature = torch.tensor([[0.0, 2.5], [1.0, 1.0], [math.nan, math.nan]])
    loss = distillation_loss(mean_embed, feature)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 0.5 + 1 + 3) / 4)
    assert mean_embed.grad.tolist() == [[0.25, -0.25], [-0.25, 0.25], [0, 0]]
    assert distillation_loss(mean_embed, torch.full((3, 2), math.nan)).item() == 0


def smoothed_surprise(logits, token, smoothing=0.1):
    log_total = math.log(sum(math.exp(logit) for logit in logits))
    surprises = [log_total - logit for logit in logits]
    return (1 - smoothing) * surprises[token] + smoothing * sum(surprises) / len(surprises)


def test_generation_scores_each_next_token_but_the_ignored_ones():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 5, 7, generator=generator) * 2
    token_ids = torch.randint(7, (2, 5), generator=generator)
    ignored = torch.tensor([[True, True, False, False, False], [True, False, False, True, True]])
    surprises = [
        smoothed_surprise(logits[row, place - 1].tolist(), token_ids[row, place].item())
        for row, place in ((0, 2), (0, 3), (0, 4), (1, 1), (1, 2))
    ]
    loss = generation_loss(logits, token_ids, ignored)
    assert loss.item() == pytest.approx(sum(surprises) / 5, rel=1e-5)


def test_generation_without_a_scored_token_is_zero():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = generation_loss(logits, torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3).bool())
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("logits_type", [torch.bfloat16, torch.float16, torch.float32])
def test_all_are_computed_in_float32_under_autocast(logits_type):
    logits = torch.linspace(-3, 3, 4000).view(2, 5, 400).to(logits_type)
    token_ids, ignored = torch.ones(2, 5, dtype=torch.long), torch.zeros(2, 5).bool()
    targets = torch.zeros(10, 400, dtype=torch.bool)
    computations = (
        lambda table: asymmetric_loss(table.flatten(0, 1), targets),
        lambda table: distillation_loss(table[0], table[1]),
        lambda table: generation_loss(table, token_ids, ignored),
    )
    for compute in computations:
        with torch.autocast("cpu", torch.bfloat16):
            loss = compute(logits)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, compute(logits.float()))


def test_the_total_scales_tagging_to_the_size_of_generation():
    tagging = torch.tensor(300.0, requires_grad=True)
    generation = torch.tensor(6.0, requires_grad=True)
    distillation = torch.tensor(0.5)
    weights = {"tagging": 2.0, "distillation": 4.0, "generation": 1.0}
    losses = {"tagging": tagging, "distillation": distillation, "generation": generation}
    total = total_loss(losses, weights)
    total.backward()
    assert total.item() == pytest.approx(2 * 6 + 4 * 0.5 + 6)
    assert (tagging.grad.item(), generation.grad.item()) == (pytest.approx(0.04), 1)
    del losses["generation"]
    assert total_loss(losses, weights).item() == 2 * 300 + 4 * 0.5


def test_tagging_is_trained_where_no_caption_was_scored():
    tagging = torch.tensor(300.0, requires_grad=True)
    losses = {"tagging": tagging, "generation": torch.tensor(0.0)}
    total_loss(losses, {"tagging": 2.0, "generation": 1.0}).backward()
    assert tagging.grad.item() == 2


def test_classification_is_the_cross_entropy_of_every_tag(tagging):
    logits, targets = tagging
    expected = sum(
        -math.log(sigmoid(logit) if target else 1 - sigmoid(logit))
        for row, target_row in zip(logits.tolist(), targets.tolist(), strict=True)
        for logit, target in zip(row, target_row, strict=True)
    )
    assert classification_loss(logits, targets).item() == pytest.approx(expected / len(logits))
