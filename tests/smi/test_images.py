"""SyntheticImages: what it accepts, what it shows, and that its files are lossless or refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

import smi

PIXELS = torch.rand(3, 1, 8, 12, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 1])
KEPT = torch.tensor([[0, 2], [1, 5], [3, 4]])  # of 2 x 3 patches


def example(**overrides) -> smi.SyntheticImages:
    fields = {"pixels": PIXELS, "targets": TARGETS, "kept": KEPT, "patch_size": (4, 4), "made": {"seed": 1}}
    return smi.SyntheticImages(**{**fields, **overrides})


def test_mask_and_masked():
    images = example()
    assert images.mask().tolist()[0] == [True, False, True, False, False, False]
    masked = images.masked()
    assert masked[0, :, :4, :4].equal(PIXELS[0, :, :4, :4]) and masked[0, :, :4, 8:].equal(
        PIXELS[0, :, :4, 8:]
    )
    assert not masked[0, :, :4, 4:8].any() and not masked[0, :, 4:].any()
    dense = example(kept=None)
    assert dense.mask().all() and dense.masked().equal(PIXELS)


@pytest.mark.parametrize("kept", [KEPT, None])
def test_save_and_load_lose_nothing(tmp_path, kept):
    images = example(kept=kept, traces={"importance": torch.rand(2, 3, 6)})
    images.save(tmp_path / "images.safetensors")
    loaded = smi.SyntheticImages.load(tmp_path / "images.safetensors")
    assert loaded.pixels.equal(PIXELS) and loaded.targets.equal(TARGETS) and loaded.made == {"seed": 1}
    assert loaded.kept is None if kept is None else loaded.kept.equal(kept)
    assert loaded.patch_size == (4, 4) and loaded.traces["importance"].equal(images.traces["importance"])
    assert [path.name for path in tmp_path.iterdir()] == ["images.safetensors"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pixels": PIXELS * 2}, "pixels must lie in"),
        ({"pixels": PIXELS.double()}, "float32"),
        ({"pixels": PIXELS * float("nan")}, "pixels must lie in"),
        ({"targets": TARGETS[:2]}, "targets must be int64"),
        ({"kept": torch.tensor([[2, 0], [1, 5], [3, 4]])}, "sorted"),
        ({"kept": torch.tensor([[0, 0], [1, 5], [3, 4]])}, "none twice"),
        ({"kept": torch.tensor([[0, 6], [1, 5], [3, 4]])}, "from 0 to 5"),
        ({"kept": KEPT[:, :0]}, "K >= 1"),
        ({"patch_size": (5, 4)}, "do not tile"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, message):
    with pytest.raises(smi.SmiError, match=message):
        example(**overrides)


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "images.safetensors"
    with pytest.raises(smi.InvalidImages, match="no such file"):
        smi.SyntheticImages.load(path)
    example().save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x04N.", whole[:40] + b"\xff" * 40 + whole[80:]):
        path.write_bytes(content)
        with pytest.raises(smi.InvalidImages, match=str(path)):
            smi.SyntheticImages.load(path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "images.safetensors"
    example().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smi.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        example(made={"seed": 2}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_select_and_picture():
    picked = example().select(torch.tensor([2, 0]))
    assert picked.targets.tolist() == [1, 0] and picked.kept.tolist() == [[3, 4], [0, 2]]
    assert example().picture(columns=2).shape == (3, 2 * (8 + 2) + 2, 2 * (12 + 2) + 2)


def test_a_set_is_indexed_sliced_and_iterated_as_a_list_is():
    images = example()
    assert images[0] == images[[0]] == images[:1] == next(iter(images)) == images[np.int64(-3)]
    assert len(images[1:]) == 2 and images[1:].kept.equal(KEPT[1:])
    assert [int(image.targets) for image in images] == [0, 1, 1] and len(list(images)) == 3
    assert images[torch.tensor([2, 0])].pixels.equal(PIXELS[[2, 0]])
    with pytest.raises(IndexError, match="no image 3 among 3"):
        images[3]


def test_equal_are_the_same_pixels_targets_and_patches_however_they_were_made():
    assert example() == example(made={"seed": 2}, traces={"importance": torch.rand(1)})
    for other in (
        example(pixels=PIXELS / 2),
        example(targets=TARGETS + 1),
        example(kept=None),
        example(kept=KEPT[[1, 0, 2]]),
        example(patch_size=(4, 2)),
        example()[:2],
        PIXELS,
    ):
        assert example() != other
    assert example(kept=None) == example(kept=None)


def test_sets_are_concatenated_in_order():
    images = example(kept=None)
    both = smi.concatenate(image for image in images)
    assert both == images and both.made == {"parts": [{"seed": 1}] * 3}
    assert smi.concatenate([example(), example()]).kept.equal(torch.cat([KEPT, KEPT]))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "no sets"),
        ([example(), PIXELS], "set 1 is a Tensor"),
        (
            [example(), example(kept=None)],
            "set 1 is of 1 x 8 x 12 pixels with all patches of 4 x 4, .* 2 patches",
        ),
        ([example(), example(kept=KEPT[:, :1])], "cannot be one set"),
        ([example(kept=None), example(kept=None, pixels=PIXELS[..., :8])], "cannot be one set"),
    ],
)
def test_sets_that_are_not_alike_are_not_concatenated(sets, message):
    with pytest.raises(smi.InvalidImages, match=message):
        smi.concatenate(sets)


def test_a_data_loader_takes_the_images():
    pixels, targets = next(iter(DataLoader(example().as_dataset(), batch_size=2)))
    assert pixels.equal(PIXELS[:2]) and targets.equal(TARGETS[:2])
    assert example().as_dataset(masked=True)[0][0].equal(example().masked()[0])


def test_they_move_between_devices_and_say_what_they_are():
    images = example(traces={"importance": torch.rand(1, 3, 6)})
    moved = images.to("cpu")
    assert moved == images and moved.traces["importance"].equal(images.traces["importance"])
    made = {"recipe": {"name": "psaq"}, "iterations": 20, "seed": 3}
    assert repr(example(made=made)) == (
        "SyntheticImages(3 images of 1 x 8 x 12, 2 of 6 patches, recipe psaq, iterations 20, seed 3)"
    )
    assert repr(example(kept=None)) == "SyntheticImages(3 images of 1 x 8 x 12, all patches, seed 1)"


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_are_written_and_shown_in_notebooks(tmp_path, channels):
    images = example(pixels=PIXELS.repeat(1, channels, 1, 1))
    paths = images.save_png(tmp_path / "pictures")
    assert [path.name for path in paths] == ["0_class0.png", "1_class1.png", "2_class1.png"]
    read = pil_to_tensor(Image.open(paths[1])) / 255
    assert len(read) == (3 if channels == 3 else 1)  # of other channels, the first is shown
    assert torch.allclose(read, images.pixels[1], atol=1 / 254)
    masked = pil_to_tensor(Image.open(images.save_png(tmp_path, masked=True)[0]))
    assert not masked[:, :4, 4:8].any()
    assert images._repr_png_().startswith(b"\x89PNG")
    assert "3 images of" in images._repr_html_() and "data:image/png;base64," in images._repr_html_()
    assert images[:0]._repr_png_() is None and images[:0]._repr_html_() is None
