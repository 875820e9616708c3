"""Re-entry: what its settings allow, what it is written down as, and that patches do come back."""

import pytest
import torch

import smi
from smi.rebirth import schedule_of

SHORT = smi.recipe("deepinversion", iterations=8, learning_rate=0.1)


def in_turn(model, image, kept, generator):
    """Odd patches are the most important at the first ranking, even ones at the second, and so on."""
    in_turn.calls += 1
    favoured = (kept % 2 == in_turn.calls % 2).float()
    return favoured.expand(kept.shape)


def test_patches_come_back_and_go_on_from_where_they_stopped(tiny_vit):
    in_turn.calls = 0
    stopping = smi.Stopping((2,), 0.5, in_turn, reenter_every=2)
    images = smi.invert(tiny_vit(), 2, SHORT, stopping, snapshots=range(9), progress=False)
    masks = images.traces["snapshot_mask"]
    odd = torch.arange(16) % 2 == 1
    assert (masks[2] == odd).all() and (masks[4] == ~odd).all() and (masks[6] == odd).all()
    assert images.traces["importance"].shape == (3, 2, 16)


def test_it_is_written_down_where_it_is_asked_for_and_nowhere_else():
    plain, again = smi.Stopping((2, 4), 0.5), smi.Stopping((2, 4), 0.5, reenter_every=3)
    assert plain.to_json() == {"at": [2, 4], "drop": [0.5, 0.5]}
    assert again.to_json() == {"at": [2, 4], "drop": [0.5, 0.5], "reenter_every": 3}
    assert schedule_of(again.to_json()) == again and schedule_of(plain.to_json()) == plain


def test_all_patches_are_ranked_at_each_stop_and_every_so_often_after_the_first():
    stopping = smi.Stopping((2, 7), 0.5, reenter_every=4)
    assert stopping.rankings(12, 16) == {2: 8, 6: 8, 7: 4, 10: 4}
    assert smi.Stopping((2, 7), 0.5).rankings(12, 16) == {2: 8, 7: 4}


def test_images_know_that_their_patches_came_back(tiny_vit):
    images = smi.invert(tiny_vit(), 2, SHORT, smi.Stopping((2,), 0.5, reenter_every=2), progress=False)
    assert images.made["stopping"]["reenter_every"] == 2
    assert [stage["patches"] for stage in images.made["stages"]] == [16, 8]


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "two"])
def test_a_distance_that_is_none_is_refused(every):
    with pytest.raises(smi.InvalidSetting, match="stopping.reenter_every is .*; allowed: None, or a whole"):
        smi.Stopping((2,), 0.5, reenter_every=every)


def test_the_published_codes_deviations_are_refused(tiny_vit):
    with pytest.raises(smi.InvalidSetting, match="a Stopping with reenter_every follows no published code"):
        smi.invert(
            tiny_vit(),
            2,
            smi.published.recipe(SHORT),
            smi.Stopping((2,), 0.5, reenter_every=2),
            progress=False,
        )
