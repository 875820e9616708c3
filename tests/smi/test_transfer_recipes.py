"""Transfer recipes: the presets, what replaces what, and what is refused."""

import pytest

import smi


def test_the_papers_recipe_is_a_linear_head_by_sgd_over_a_thousand_rounds():
    paper = smi.transfer_recipe("paper")
    assert (paper.train, paper.optimizer, paper.steps, paper.rounds) == ("head", "sgd", 1000, 1000)
    assert (paper.learning_rate, paper.momentum, paper.weight_decay) == (0.1, 0.9, 1e-4)
    assert paper.temperature == 20


def test_the_default_trains_all_weights_with_adamw():
    default = smi.transfer_recipe("default")
    assert default == smi.TransferRecipe()
    assert (default.train, default.optimizer, default.learning_rate) == ("all", "adamw", 1e-3)


def test_another_optimizer_brings_its_own_rates_unless_they_are_given():
    assert smi.transfer_recipe("default", optimizer="sgd").learning_rate == 0.1
    given = smi.transfer_recipe("default", optimizer="sgd", learning_rate=0.3)
    assert (given.learning_rate, given.weight_decay) == (0.3, 1e-4)
    assert smi.transfer_recipe(given, optimizer="sgd", momentum=0.5).learning_rate == 0.3


@pytest.mark.parametrize("name", sorted(smi.TRANSFER_RECIPES))
def test_transfer_recipes_survive_json(name):
    recipe = smi.transfer_recipe(name)
    assert smi.TransferRecipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: smi.transfer_recipe("papers"), "unknown transfer recipe 'papers'; allowed: default, paper"),
        (lambda: smi.transfer_recipe("paper", lr=1), "unknown setting 'lr'; allowed: batch_size, betas"),
        (lambda: smi.TransferRecipe.from_json({"lr": 1}), "unknown setting 'lr'"),
        (lambda: smi.TransferRecipe(betas=(0.9,)), "betas is (0.9,); allowed: two numbers"),
        (lambda: smi.TransferRecipe(momentum=1.0), "momentum is 1.0; allowed: 0 to below 1"),
    ],
)
def test_what_makes_no_sense_is_named(make, message):
    with pytest.raises(smi.InvalidSetting) as caught:
        make()
    assert message in str(caught.value)
