"""Recipes: what the published methods do in every iteration, and what is refused."""

import math

import pytest
import torch

import smi


def test_psaq_is_two_rounds_of_500_with_a_warm_up_and_a_cosine_each():
    recipe = smi.recipe("psaq")
    assert (recipe.iterations, recipe.rounds, recipe.betas) == (1000, 2, (0.5, 0.9))
    for iteration in range(1000):
        within = iteration % 500
        if within < 100:
            published = 0.20 * (within + 1) / 100
        else:
            published = 0.5 * (1 + math.cos(math.pi * (within - 100) / 400)) * 0.20
        assert recipe.learning_rate_at(iteration) == pytest.approx(published, rel=1e-12)


def test_psaq_rolls_rows_and_columns_alike_by_15_then_30_pixels():
    recipe, generator = smi.recipe("psaq"), torch.Generator().manual_seed(0)
    for iterations, limit in ((range(500), 15), (range(500, 1000), 30)):
        draws = [recipe.draw_jitter(t, 224, 224, generator) for t in iterations]
        assert all(draw.rows == draw.columns for draw in draws)
        assert {draw.rows for draw in draws} == set(range(-limit, limit + 1))
        assert 0.4 < sum(draw.flip for draw in draws) / len(draws) < 0.6


def test_fewer_rounds_take_the_first_rounds_jitter_unless_another_is_given():
    alike = smi.recipe("psaq", jitter=(0.1, 0.1))
    assert smi.recipe(alike, rounds=1).jitter == (0.1,)
    assert smi.recipe(alike, rounds=2, jitter=(0.2, 0.3)).jitter == (0.2, 0.3)


def test_psaqs_objective():
    terms = {term.name: (term.weight, dict(term.params)) for term in smi.recipe("psaq").objective.terms}
    assert terms["patch_similarity_entropy"] == (1.0, {})
    assert terms["cross_entropy"] == (1.0, {})
    weight, where = terms["tv_l2_target"]
    assert weight == 0.05 and where.get("on", "view") == "view" and len(terms) == 3


def test_deepinversion_rolls_rows_and_columns_apart_by_up_to_an_eighth():
    recipe, generator = smi.recipe("deepinversion"), torch.Generator().manual_seed(0)
    draws = [recipe.draw_jitter(t, 224, 112, generator) for t in range(2000)]
    assert {draw.rows for draw in draws} == set(range(-28, 29))
    assert {draw.columns for draw in draws} == set(range(-14, 15))
    assert any(draw.rows != draw.columns for draw in draws)
    assert {recipe.learning_rate_at(t) for t in (0, 1999, 3999)} == {0.25}
    assert (recipe.iterations, recipe.betas) == (4000, (0.5, 0.99))
    assert recipe.objective == smi.Objective.of([("cross_entropy", 1.0), ("tv_l2", 1e-4)])


def test_deepinversion_for_batchnorm_has_the_published_weights():
    terms = {term.name: term.weight for term in smi.recipe("deepinversion_bn").objective.terms}
    assert terms == {"cross_entropy": 1.0, "tv_l2": 1e-4, "l2": 1e-5, "batchnorm_feature": 0.01}
    assert "adaptive" in smi.recipe("adaptive_deepinversion_bn").objective.needs | {
        term.name for term in smi.recipe("adaptive_deepinversion_bn").objective.terms
    }


@pytest.mark.parametrize("name", sorted(smi.RECIPES))
def test_recipes_survive_json(name):
    recipe = smi.recipe(name)
    assert smi.Recipe.from_json(recipe.to_json()) == recipe


def test_any_terms_compose_dense_and_sparse_by_name(tiny_vit):
    objective = [
        ["cross_entropy", 1.0],
        ["tv_l1", 0.1, {"on": "view"}],
        ["l2", 1e-3],
        ["patch_similarity_entropy", 0.5],
        ["tv_l2_target", 0.05],
    ]
    recipe = smi.recipe("deepinversion", objective=objective, iterations=4)
    for stopping in (None, smi.Stopping(at=(1, 3), drop=0.4)):
        images = smi.invert(tiny_vit(), 2, recipe, stopping)
        assert torch.isfinite(torch.tensor(images.made["history"]["loss"])).all()
        assert images.made["recipe"]["objective"] == smi.Objective.of(objective).to_json()


def test_a_student_is_no_part_of_a_recipes_json(tiny_vit):
    recipe = smi.recipe("adaptive_deepinversion_bn", student=tiny_vit())
    assert recipe.student is not None and "student" not in recipe.to_json()
    with pytest.raises(smi.InvalidSetting, match="unknown setting 'student'"):
        smi.Recipe.from_json({**recipe.to_json(), "student": "resnet18"})
