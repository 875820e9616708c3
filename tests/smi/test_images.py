"""SyntheticImages: what it accepts, what it shows, and that its files are lossless or refused."""

import pytest
import torch

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
