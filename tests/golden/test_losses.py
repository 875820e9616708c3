"""Loss terms agree with the published code, gradients included."""

import pytest
import torch
from torch.testing import assert_close

from smi.objectives import TERMS, Step, jensen_shannon, kd_loss
from smi.patch_similarity import (
    differential_entropy,
    kernel_density,
    mean_over_heads,
    patch_similarity,
    similarity_grid,
)


def step_of(image, **fields) -> Step:
    return Step(image=image, view=image, logits=image, targets=image, **fields)


@pytest.mark.parametrize("name", ["tv_l1", "tv_l2"])
@pytest.mark.parametrize("on", ["image", "view"])
def test_total_variation_and_its_gradient(vectors, name, on):
    golden = vectors("losses")
    image = golden["image"].requires_grad_()
    value = TERMS[name](step_of(image), on=on)
    assert_close(value, golden[name], rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(value, image)
    assert_close(gradient, golden[f"{name}_grad"], rtol=1e-5, atol=1e-6)


def test_l2_norm_of_the_batch(vectors):
    golden = vectors("losses")
    assert_close(TERMS["l2"](step_of(golden["image"]), over="batch"), golden["l2"], rtol=1e-6, atol=0)


def test_jensen_shannon_in_the_published_direction(vectors):
    golden = vectors("losses")
    ours = jensen_shannon(golden["logits_a"], golden["logits_b"], temperature=3.0)
    assert_close(ours, golden["jsd_T3"], rtol=1e-5, atol=1e-7)


def test_distillation_loss(vectors):
    golden = vectors("losses")
    ours = kd_loss(golden["logits_a"], golden["logits_b"], temperature=20.0)
    assert_close(ours, golden["kd_T20_student_a_teacher_b"], rtol=1e-5, atol=1e-5)


def test_batchnorm_feature_loss_of_one_layer(vectors):
    golden = vectors("bn_feature")
    feature = golden["feature"]
    mean, variance = feature.mean((0, 2, 3)), feature.var((0, 2, 3), unbiased=False)
    step = step_of(feature, batchnorm=[(mean, variance, golden["running_mean"], golden["running_var"])])
    assert_close(TERMS["batchnorm_feature"](step, first=1.0), golden["loss"], rtol=1e-5, atol=0)


def test_patch_similarity_entropy_step_by_step(vectors):
    golden = vectors("patch_similarity_entropy")
    head_outputs = golden["head_outputs"].requires_grad_()
    captured = head_outputs.transpose(1, 2).flatten(2)  # [B, N, heads * d], as it enters the projection
    outputs = mean_over_heads(captured, heads=head_outputs.shape[1], prefix_tokens=1)
    similarity = patch_similarity(outputs)
    assert_close(similarity, golden["similarity"], rtol=0, atol=1e-6)
    points = similarity_grid(similarity)
    assert_close(points.expand_as(golden["grid"]), golden["grid"], rtol=0, atol=1e-6)
    density = kernel_density(similarity.flatten(1), points)
    assert_close(density, golden["density"], rtol=1e-4, atol=1e-4)
    assert_close(differential_entropy(density, points), golden["entropy"], rtol=1e-5, atol=1e-6)

    loss = TERMS["patch_similarity_entropy"](step_of(outputs, attention_outputs=[outputs]))
    assert_close(loss, -golden["entropy"], rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(-loss, head_outputs)
    assert_close(gradient, golden["entropy_grad"], rtol=1e-3, atol=5e-5)
