"""Loss terms beyond the reference vectors: oracles by plain autograd, edge values, names and composition."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from smi.errors import InvalidSetting
from smi.objectives import NEEDS, TERMS, Objective, Step, jensen_shannon, kd_loss
from smi.patch_similarity import kernel_density, mean_over_heads, patch_similarity
from smi.total_variation import tv_l1, tv_l2


def step_of(image, view=None, **fields) -> Step:
    fields = {
        "logits": torch.zeros(len(image), 3),
        "targets": torch.zeros(len(image), dtype=torch.long),
    } | fields
    return Step(image=image, view=image if view is None else view, **fields)


def plain_tv_l2(x):
    """The formula as written, by autograd."""
    pairs = [
        (x[..., :-1], x[..., 1:]),
        (x[..., :-1, :], x[..., 1:, :]),
        (x[..., :-1, :-1], x[..., 1:, 1:]),
        (x[..., 1:, :-1], x[..., :-1, 1:]),
    ]
    return sum(torch.norm(one - other) for one, other in pairs)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (2, 3, 5, 9), (3, 1, 8, 4)])
def test_tv_l2_against_plain_autograd(shape):
    image = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    value, plain = tv_l2(image), plain_tv_l2(image)
    assert_close(value, plain)
    assert_close(*(torch.autograd.grad(v * 1.7, image)[0] for v in (value, plain)))
    assert torch.autograd.gradcheck(tv_l2, image)


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_tv_of_a_constant_image_is_zero_with_a_zero_gradient(constant):
    image = torch.full((2, 3, 4, 4), constant, requires_grad=True)
    for function in (tv_l2, tv_l1):
        value = function(image)
        assert value == 0
        assert torch.equal(torch.autograd.grad(value, image)[0], torch.zeros_like(image))


def test_tv_of_stripes_has_one_direction_without_gradient():
    image = (
        torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4).clone().requires_grad_()
    )  # no change downwards
    value = tv_l2(image)
    assert_close(value, torch.tensor(math.sqrt(12) + 2 * 3.0))
    assert torch.isfinite(torch.autograd.grad(value, image)[0]).all()


def test_tv_of_bfloat16_is_summed_in_float32():
    image = torch.randn(2, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    value = tv_l2(image)
    assert value.dtype == torch.float32
    assert_close(value, plain_tv_l2(image.float()))
    assert torch.autograd.grad(value, image)[0].dtype == torch.bfloat16


def test_tv_l2_grows_with_the_root_of_the_batch():
    image = torch.randn(1, 3, 6, 6)
    assert_close(tv_l2(image.repeat(16, 1, 1, 1)), 4 * tv_l2(image))


def test_tv_target_is_the_papers_at_the_papers_size_and_scales_as_a_norm():
    constant = torch.zeros(32, 3, 224, 224)
    assert TERMS["tv_l2_target"](step_of(constant, chance=0.0)) == 2500
    assert TERMS["tv_l2_target"](step_of(constant, chance=0.5)) == 2750
    quarter = torch.zeros(8, 3, 224, 224)
    assert_close(TERMS["tv_l2_target"](step_of(quarter, chance=0.5)), torch.tensor(1375.0))


def test_tv_target_pulls_from_both_sides_and_looks_at_the_view():
    torch.manual_seed(0)
    image, view = torch.zeros(1, 3, 8, 8), torch.randn(1, 3, 8, 8, requires_grad=True)
    tv = tv_l2(view).item()
    to_paper = math.sqrt(32 * 3 * 224 * 224 / view.numel())
    for factor, sign in ((0.5, 1), (2.0, -1)):
        target = {"low": tv * factor * to_paper, "high": tv * factor * to_paper}
        value = TERMS["tv_l2_target"](step_of(image, view), **target)
        assert_close(value, torch.tensor(abs(1 - factor) * tv), rtol=1e-4, atol=0)
        ours, plain = (torch.autograd.grad(v, view)[0] for v in (value, tv_l2(view)))
        assert_close(ours, sign * plain)


def test_l2_is_a_mean_over_images():
    image = torch.randn(4, 3, 5, 5)
    assert_close(TERMS["l2"](step_of(image)), torch.stack([x.norm() for x in image]).mean())
    zero = torch.zeros(2, 3, 4, 4, requires_grad=True)
    assert torch.isfinite(torch.autograd.grad(TERMS["l2"](step_of(zero)), zero)[0]).all()


def published_similarity_entropy(outputs):
    """PSAQ-ViT's own way: P x P x d cosine, kernels of all points at once, gradient by autograd."""
    similarity = torch.cosine_similarity(outputs.unsqueeze(1), outputs.unsqueeze(2), dim=-1)
    low, high = similarity.detach().min(), similarity.detach().max()
    points = low + (high - low) * torch.linspace(0, 1, 10)
    kernels = torch.exp(-0.5 * ((points.view(1, -1, 1) - similarity.flatten(1).unsqueeze(1)) / 0.01) ** 2)
    density = kernels.mean(dim=2) / (0.01 * math.sqrt(2 * math.pi)) + 1e-4
    return torch.trapezoid(-density * density.log(), points, dim=1).mean()


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 16, 8), (2, 25, 4)])
def test_entropy_against_the_published_way(shape):
    torch.manual_seed(shape[1])
    blocks = [torch.randn(shape, requires_grad=True) for _ in range(2)]
    loss = TERMS["patch_similarity_entropy"](step_of(torch.zeros(1), attention_outputs=blocks))
    plain = -sum(published_similarity_entropy(block) for block in blocks)
    assert_close(loss, plain, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(loss, blocks), torch.autograd.grad(plain, blocks), strict=True
    ):
        assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_density_gradient_by_finite_differences():
    torch.manual_seed(0)
    samples = (torch.rand(2, 30, dtype=torch.float64) * 0.1).requires_grad_()
    points = torch.linspace(0, 0.1, 10, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: kernel_density(s, points), samples)


def test_similarity_survives_equal_patches_and_zero_patches():
    outputs = torch.zeros(1, 5, 4, requires_grad=True)
    loss = TERMS["patch_similarity_entropy"](step_of(torch.zeros(1), attention_outputs=[outputs]))
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, outputs)[0]).all()
    assert_close(patch_similarity(torch.ones(1, 3, 2)), torch.ones(1, 3, 3))


def test_outputs_close_to_zero_are_as_alike_as_torch_says():
    """Where a norm is below 1e-8, the published guard makes patches less alike than their angle."""
    outputs = torch.tensor([[[1.0, 2, 3], [3, -1, 2]]]) * 1e-9
    assert_close(
        patch_similarity(outputs), F.cosine_similarity(outputs[:, :, None], outputs[:, None], dim=-1)
    )


def test_a_term_says_which_pixels_it_reads():
    given = Objective.of([("tv_l2", 1e-4, {"on": "view"}), ("cross_entropy", 1.0)])
    assert [term.on for term in given.terms] == ["view", None]
    assert Objective.of({"tv_l2": 1e-4}).terms[0].on == "image"


def test_entropy_ignores_autocast():
    outputs = torch.randn(2, 9, 4)
    step = step_of(torch.zeros(1), attention_outputs=[outputs])
    plain = TERMS["patch_similarity_entropy"](step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(TERMS["patch_similarity_entropy"](step), plain)


def test_mean_over_heads_drops_every_prefix_token():
    heads = torch.randn(2, 3, 7, 4)  # [B, heads, N, d]
    captured = heads.transpose(1, 2).flatten(2)
    for prefix in (0, 1, 2):
        assert_close(mean_over_heads(captured, 3, prefix), heads.mean(1)[:, prefix:])


def test_batchnorm_feature_weighs_the_first_layer_ten_times():
    layer = (torch.ones(4), torch.full((4,), 3.0), torch.zeros(4), torch.ones(4))  # norms 2 and 4
    value = TERMS["batchnorm_feature"](step_of(torch.zeros(1), batchnorm=[layer, layer, layer]))
    assert_close(value, torch.tensor(10 * 6.0 + 6 + 6))


def test_adaptive_rewards_disagreement():
    teacher = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])
    same = TERMS["adaptive"](step_of(torch.zeros(2), logits=teacher, student_logits=teacher))
    other = TERMS["adaptive"](step_of(torch.zeros(2), logits=teacher, student_logits=teacher.roll(1, 1)))
    assert_close(same, torch.tensor(1.0), atol=1e-2, rtol=0)
    assert other < same and other >= 0
    assert_close(other, 1 - jensen_shannon(teacher.roll(1, 1), teacher))


def test_distillation_is_zero_for_equal_logits_and_scales_with_temperature():
    logits, other = torch.randn(6, 5), torch.randn(6, 5)
    assert_close(kd_loss(logits, logits), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert kd_loss(logits, other) > 0
    teacher = (other / 2).softmax(1)
    by_hand = (teacher * (teacher.log() - (logits / 2).log_softmax(1))).sum(1).mean() * 4
    assert_close(kd_loss(logits, other, temperature=2.0), by_hand)


def test_an_objective_is_the_weighted_sum_of_its_terms_and_survives_json():
    objective = Objective.of([("cross_entropy", 2), ("tv_l2", 1e-4, {"on": "view"}), ["l2", 0.5]])
    assert Objective.of(objective.to_json()) == objective
    assert hash(Objective.of(objective.to_json())) == hash(objective)
    assert Objective.of({"cross_entropy": 2}) == Objective.of([("cross_entropy", 2.0)])
    image = torch.randn(2, 3, 4, 4, requires_grad=True)
    step = step_of(image, image * 2, logits=torch.randn(2, 3))
    each = 2 * TERMS["cross_entropy"](step) + 1e-4 * tv_l2(image * 2) + 0.5 * TERMS["l2"](step)
    assert_close(objective(step), each)


def test_an_objective_says_what_it_needs():
    assert Objective.of({"cross_entropy": 1.0, "tv_l1": 1.0}).needs == frozenset()
    everything = Objective.of(dict.fromkeys(TERMS, 1.0))
    assert (
        everything.needs
        == {"attention_outputs", "batchnorm", "student_logits"}
        == frozenset().union(*NEEDS.values())
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([("tv_l3", 1.0)], "unknown loss term 'tv_l3'; allowed: adaptive, batchnorm_feature"),
        ([("tv_l2", 1.0, {"where": "view"})], "unknown parameter 'where'; allowed: on"),
        ([("cross_entropy", 1.0, {"on": "view"})], "unknown parameter 'on'; allowed: none"),
        ([("tv_l2", 1.0, {"on": "screen"})], "on is 'screen'; allowed: image, view"),
        ([("tv_l2", "1e-4")], "weight is '1e-4'; allowed: a finite number"),
        ([("tv_l2", float("nan"))], "weight is nan; allowed: a finite number"),
        ([("tv_l2", True)], "weight is True; allowed: a finite number"),
        ([("tv_l2_target", 1.0, {"low": "much"})], "low is 'much'; allowed: a finite number"),
        ([("adaptive", 1.0, {"temperature": 0})], "temperature is 0; allowed: a number above 0"),
        (["tv_l2"], "objective entry 'tv_l2'; allowed"),
        ([["tv_l2", 1.0, 3]], r"objective entry \['tv_l2', 1.0, 3\]; allowed"),
        ([[["tv_l2"], 1.0]], "objective entry .*; allowed"),
        ("tv_l2", "objective is 'tv_l2'; allowed: a list"),
        (5, "objective is 5; allowed: a list"),
        ([], "needs at least one loss term"),
    ],
)
def test_bad_objectives_are_refused_with_what_is_allowed(terms, message):
    with pytest.raises(InvalidSetting, match=message) as caught:
        Objective.of(terms)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("term", "message"),
    [("patch_similarity_entropy", "ViT"), ("batchnorm_feature", "BatchNorm"), ("adaptive", "student")],
)
def test_a_term_says_what_it_misses(term, message):
    with pytest.raises(InvalidSetting, match=message):
        TERMS[term](step_of(torch.zeros(1, 3, 4, 4)))
