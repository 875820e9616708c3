"""Files of tensors: whole or not at all, and readable by whoever the umask lets."""

from __future__ import annotations

import os

import pytest
import torch

from smi.errors import SmiError
from smi.files import load_tensors, save_tensors


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_saved_file_has_the_mode_that_the_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "file", {"x": torch.ones(2)}, {"a": 1})
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    tensors, description = load_tensors(tmp_path / "file", SmiError)
    assert tensors["x"].equal(torch.ones(2)) and description == {"a": 1}


@pytest.mark.parametrize("length", range(1, 9))
def test_loaded_tensors_lie_where_torch_lays_its_own(tmp_path, length):
    """Some of torch's sums round by a tensor's address, which in a file follows from the length of its header."""
    save_tensors(tmp_path / "file", {"x": torch.ones(3), "y": torch.ones(5)}, {"a": "b" * length})
    tensors, _ = load_tensors(tmp_path / "file", SmiError)
    assert {tensor.data_ptr() % 64 for tensor in tensors.values()} == {torch.ones(3).data_ptr() % 64}
