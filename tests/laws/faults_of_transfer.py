"""Faults in knowledge transfer, and in what inversion draws, and the law that must notice each."""

from __future__ import annotations

from laws.core import Fault
from smi import distillation, inversion, loop, pool, recipes

AGREES = "the_reference_transfer_agrees"
FAULTS = [
    Fault("momentum ignored", distillation, "_optimizer", "recipe.momentum", "0.0", AGREES),
    Fault(
        "weight decay ignored", distillation, "_optimizer", "weight_decay=decay", "weight_decay=0.0", AGREES
    ),
    Fault(
        "a frozen backbone in training mode",
        distillation.Run,
        "advance",
        'self.student.model.train(recipe.train == "all")',
        "self.student.model.train(True)",
        AGREES,
    ),
    Fault(
        "every step draws the same images",
        distillation.Run,
        "advance",
        'derived_seed(self.seed, "draw", step)',
        'derived_seed(self.seed, "draw", 0)',
        AGREES,
    ),
    Fault(
        "the student sees the teacher's normalisation",
        distillation.Run,
        "advance",
        "self.student.forward(views[1], kept)",
        "self.student.forward(views[0], kept)",
        AGREES,
    ),
    Fault(
        "the student is taught at another temperature",
        distillation.Run,
        "advance",
        "kd_loss(answered, wanted, recipe.temperature)",
        "kd_loss(answered, wanted, 2 * recipe.temperature)",
        AGREES,
    ),
    Fault(
        "kept sets do not move along",
        pool.Pool,
        "draw",
        "move.remap(row[None], self.grid)",
        "row[None]",
        "a_pools_kept_sets_move_with_their_images",
    ),
    Fault(
        "what is frozen is trained",
        distillation,
        "_trained_parameters",
        "if parameter.requires_grad",
        "if True",
        "what_is_not_trained_stays_to_the_bit",
    ),
    Fault(
        "all batches draw the same noise",
        inversion,
        "_run_batches",
        'derived_seed(seed, index, "images")',
        'derived_seed(seed, 0, "images")',
        "each_image_has_noise_of_its_own",
    ),
    Fault(
        "the random score is the same at each stop",
        loop.Loop,
        "importance",
        "state.score_generator",
        "torch.Generator().manual_seed(0)",
        "random_scores_are_drawn_anew_at_each_stop",
    ),
    Fault(
        "the probability of mirroring ignored",
        recipes.Recipe,
        "draw_jitter",
        "coin < self.flip",
        "coin < 0.5",
        "jitter_is_drawn_within_its_limits_and_mirrors_as_often_as_it_says",
    ),
    Fault(
        "the history of the first batch alone",
        inversion,
        "_merge_figures",
        "torch.stack([batch.losses for batch in batches]).mean(0)",
        "batches[0].losses",
        "the_history_is_the_mean_of_its_batches",
    ),
    Fault(
        "terms of the model without their chance",
        loop.Loop,
        "_of_model",
        "chance=chance",
        "chance=0.0",
        "a_term_gets_the_chance_of_its_batch",
    ),
]
