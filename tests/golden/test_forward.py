"""Forward on kept patches, CLS attention and jitter remap agree with the published code."""

import torch
from torch.testing import assert_close

from smi.geometry import Jitter, PatchGrid
from smi.stopping import most_important
from smi.vit import adapt


def kept_patches(tokens: torch.Tensor) -> torch.Tensor:
    """Token indices with CLS as 0, in any order -> sorted patch indices."""
    assert (tokens[:, 0] == 0).all()
    return tokens[:, 1:].sub(1).sort(dim=1).values


def test_logits_dense_and_on_kept_patches(vectors, golden_model):
    golden = vectors("sparse_forward")
    tokens = adapt(golden_model)
    kept = kept_patches(golden["kept_tokens_with_cls"])
    with torch.no_grad():
        assert_close(tokens.forward(golden["images"]), golden["logits_dense"], rtol=1e-4, atol=1e-5)
        assert_close(tokens.forward(golden["images"], kept), golden["logits_sparse"], rtol=1e-4, atol=1e-5)


def test_order_of_kept_patches_does_not_matter(vectors, golden_model):
    golden = vectors("sparse_forward")
    as_recorded = golden["kept_tokens_with_cls"][:, 1:] - 1
    with torch.no_grad():
        logits = adapt(golden_model).forward(golden["images"], as_recorded)
    assert_close(logits, golden["logits_sparse"], rtol=1e-4, atol=1e-5)


def test_cls_attention_of_the_last_block(vectors, golden_model):
    golden = vectors("sparse_forward")
    tokens = adapt(golden_model)
    assert_close(tokens.cls_attention(golden["images"]), golden["cls_attention_dense"], rtol=1e-4, atol=1e-6)
    as_recorded = golden["kept_tokens_with_cls"][:, 1:] - 1
    sparse = tokens.cls_attention(golden["images"], as_recorded)
    assert_close(sparse, golden["cls_attention_sparse"], rtol=1e-4, atol=1e-6)


def test_most_important_patches(vectors, golden_model):
    golden = vectors("sparse_forward")
    tokens = adapt(golden_model)
    attention = tokens.cls_attention(golden["images"])
    everything = torch.arange(tokens.num_patches).expand(attention.shape)
    wanted = kept_patches(golden["topk_relative_with_cls"])
    kept, positions = most_important(everything, attention, wanted.shape[1])
    assert torch.equal(kept, wanted)
    assert torch.equal(positions, wanted)


def test_jitter_remap_for_all_recorded_offsets(vectors):
    golden = vectors("jitter_remap")
    side, patch = golden["grid"].tolist(), golden["patch_size"].tolist()
    grid = PatchGrid(side, side, patch, patch)
    kept = golden["kept_tokens_with_cls"][:, 1:] - 1
    offsets = golden["offsets_rows_cols_flip"].tolist()
    assert len(offsets) == golden["remapped"].shape[0] > 0
    for (rows, columns, flip), wanted in zip(offsets, golden["remapped"], strict=True):
        ours = Jitter(rows, columns, bool(flip)).remap(kept, grid)
        assert torch.equal(ours, wanted[:, 1:] - 1), (rows, columns, flip)
