"""FLOPs: the paper's printed figures, closed forms, and two independent counters."""

import functools

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer

from smi import flops
from smi.errors import InvalidSetting, UnsupportedModel
from smi.stopping import Stopping

TINY, SMALL, BASE = (f"deit_{size}_patch16_224" for size in ("tiny", "small", "base"))


def on_meta(make, **options) -> torch.nn.Module:
    """A model without memory for its weights, where its constructor allows: counting needs shapes only."""
    make = make if callable(make) else functools.partial(timm.create_model, make)
    try:
        with torch.device("meta"):
            return make(**options)
    except (RuntimeError, NotImplementedError):  # older versions of timm compute with values
        return make(**options)


def paper_macs(patches, tokens, width, depth, patch, classes, channels=3):
    """The closed form of the paper's column (docs/reproducibility.md)."""
    embedding = patches * channels * patch * patch * width
    return embedding + depth * tokens * 12 * width**2 + classes * width + 4 * (2 * depth + 1) * tokens * width


def exact_macs(patches, tokens, width, depth, patch, classes):
    attention = 2 * tokens**2 * width
    return depth * (12 * tokens * width**2 + attention) + patches * 3 * patch**2 * width + classes * width


@pytest.mark.parametrize(
    ("name", "kept", "printed"),
    [(TINY, None, "414.20"), (TINY, 46, "107.32"), (BASE, None, "6475.63"), (BASE, 46, "1578.97")],
)
def test_table_3_to_the_last_printed_digit(name, kept, printed):
    assert f"{flops.paper_gflops(on_meta(name), kept=kept):.2f}" == printed


@pytest.mark.parametrize("make", [torchvision.models.resnet18, lambda: timm.create_model("resnet18")])
@pytest.mark.parametrize(("size", "printed", "macs"), [(32, "0.11", 0.037727), (224, "5.47", 1.824034)])
def test_table_1_counts_resnet18_per_image(make, size, printed, macs):
    model = on_meta(make)
    gflops = flops.paper_gflops(model, batch=1, image_size=size)
    assert f"{gflops:.2f}" == printed
    assert round(gflops / 3, 6) == pytest.approx(macs, abs=1e-6)


@pytest.mark.parametrize(("name", "gmacs"), [(TINY, 1.2537), (SMALL, 4.5989), (BASE, 17.5638)])
def test_exact_count_of_the_deit_models(name, gmacs):
    assert flops.exact_gmacs(on_meta(name)) == pytest.approx(gmacs, abs=5e-5)


@pytest.mark.parametrize(("name", "average"), [(TINY, "117.02"), (BASE, "1733.63")])
def test_average_over_the_papers_run(name, average):
    assert f"{flops.run_average_gflops(on_meta(name), Stopping(), 4000):.2f}" == average


def test_average_weighs_stages_by_their_iterations():
    model = on_meta(TINY)
    stopping = Stopping(at=(10, 30), drop=(0.5, 0.25))
    stages = [(10, None), (20, 98), (70, 73)]
    wanted = sum(length * flops.paper_gflops(model, kept) for length, kept in stages) / 100
    assert flops.run_average_gflops(model, stopping, 100) == pytest.approx(wanted, rel=1e-12)
    assert flops.run_average_gflops(model, None, 100) == flops.paper_gflops(model)
    assert flops.run_average_gflops(model, stopping, 5) == pytest.approx(flops.paper_gflops(model), rel=1e-12)


@pytest.mark.parametrize(
    ("image", "patch", "width", "depth", "heads", "classes"),
    [(224, 32, 768, 12, 12, 100), (32, 4, 48, 3, 3, 10), (64, 8, 96, 1, 2, 1000), (48, 16, 32, 5, 4, 7)],
)
def test_any_vit_follows_both_closed_forms(image, patch, width, depth, heads, classes):
    model = on_meta(
        VisionTransformer,
        img_size=image,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=classes,
    )
    patches = (image // patch) ** 2
    for kept in (None, 1, patches // 2, patches):
        shape = (patches, (patches if kept is None else kept) + 1, width, depth, patch, classes)
        assert flops.paper_gflops(model, kept, batch=5) == pytest.approx(
            3 * 5 * paper_macs(*shape) / 1e9, rel=1e-12
        )
        assert flops.exact_gmacs(model, kept) == pytest.approx(exact_macs(*shape) / 1e9, rel=1e-12)


def test_embedding_the_kept_patches_alone_saves_the_stopped_ones_share():
    model = on_meta(TINY)
    saved = flops.exact_gmacs(model, 46) - flops.exact_gmacs(model, 46, embed_kept_only=True)
    assert saved == pytest.approx((196 - 46) * 768 * 192 / 1e9, rel=1e-9)


VARIANTS = {
    "plain": {},
    "registers": {"reg_tokens": 3},
    "layer scale": {"init_values": 1e-4},
    "average pool": {"global_pool": "avg"},
    "narrow mlp": {"mlp_ratio": 2.0},
    "query and key norms": {"qk_norm": True},
    "norm before": {"pre_norm": True},
}


@pytest.fixture(params=VARIANTS)
def small_vit(request):
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=(24, 40),
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=5,
        **VARIANTS[request.param],
    )
    for block in model.blocks:
        block.attn.fused_attn = False  # counters do not see into fused attention
    return model.eval()


@pytest.mark.parametrize("weight_gradients", [False, True])
def test_torchs_own_counter_agrees(small_vit, weight_gradients):
    from torch.utils.flop_counter import FlopCounterMode

    small_vit.requires_grad_(weight_gradients)
    image = torch.randn(1, 3, 24, 40, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        logits = small_vit(image)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert flops.exact_gmacs(small_vit) == pytest.approx(forward.get_total_flops() / 2e9, rel=1e-3)
    both = (forward.get_total_flops() + backward.get_total_flops()) / 2e9
    assert flops.step_gmacs(small_vit, weight_gradients=weight_gradients) == pytest.approx(both, rel=1e-3)


def test_fvcore_agrees(small_vit):
    import fvcore.nn

    analysis = fvcore.nn.FlopCountAnalysis(small_vit, torch.randn(1, 3, 24, 40))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counted = analysis.by_operator()
    products = sum(counted[operator] for operator in ("conv", "linear", "matmul", "addmm"))
    assert flops.exact_gmacs(small_vit) == pytest.approx(products / 1e9, rel=1e-3)


def test_torchs_own_counter_agrees_on_a_cnn():
    from torch.utils.flop_counter import FlopCounterMode

    model = timm.create_model("resnet18", num_classes=7).requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 64, 96))
    assert flops.exact_gmacs(model, image_size=(64, 96)) == pytest.approx(
        counter.get_total_flops() / 4e9, rel=1e-9
    )


def test_the_model_is_left_alone():
    model = timm.create_model("resnet18", num_classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flops.paper_gflops(model, batch=1)
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kept", [0, -1, 197, 3.5])
def test_impossible_kept_counts_are_refused(kept):
    with pytest.raises(InvalidSetting, match="from 1 to 196"):
        flops.paper_gflops(on_meta(TINY), kept=kept)


def test_what_is_not_counted_is_refused_by_name():
    with pytest.raises(UnsupportedModel, match="ResNet"):
        flops.paper_gflops(on_meta("resnet18"), kept=46)
    with pytest.raises(UnsupportedModel, match="SwinTransformer"):
        flops.exact_gmacs(on_meta("swin_tiny_patch4_window7_224"), kept=46)


class Layouts(torch.nn.Module):
    """Attention as other libraries lay it out: apart, packed, by einsum."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.conv = layout, torch.nn.Conv2d(3, 8, 4, 4)
        self.query, self.key, self.value = (torch.nn.Linear(8, 8) for _ in range(3))
        self.packed = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        if self.layout == "packed":
            return self.packed(x, x, x, need_weights=False)[0]
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.layout == "fused":
            return torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return torch.einsum("bij,bjd->bid", torch.einsum("bid,bjd->bij", query, key).softmax(-1), value)


@pytest.mark.parametrize("layout", ["fused", "packed", "einsum"])
def test_attention_is_counted_in_any_layout(layout):
    tokens, width = 64, 8
    linear = tokens * 3 * 4 * 4 * width + (4 if layout == "packed" else 3) * tokens * width**2
    attention = 2 * tokens**2 * width
    model = Layouts(layout).eval()
    assert flops.exact_gmacs(model, image_size=32) == pytest.approx((linear + attention) / 1e9, rel=1e-12)
    for weights in (False, True):
        step = flops.step_gmacs(model, image_size=32, weight_gradients=weights)
        assert step == pytest.approx((linear * (3 if weights else 2) + attention * 3) / 1e9, rel=1e-12)
    assert model.query.weight.device.type == "cpu" and model.query.weight.requires_grad


@pytest.mark.parametrize(
    "options",
    [{}, {"global_pool": "avg"}, {"qk_norm": True}, {"reg_tokens": 2}, {"init_values": 0.1},
     {"class_token": False, "global_pool": "avg"}],
)  # fmt: skip
@pytest.mark.parametrize("weights", [False, True])
def test_the_closed_form_judges_the_counter(options, weights):
    from smi.flops_by_running import products

    model = VisionTransformer(
        img_size=24, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, **options
    )
    forward, backward = products(model, 24, weights)
    assert forward / 1e9 == pytest.approx(flops.exact_gmacs(model), rel=1e-9)
    assert (forward + backward) / 1e9 == pytest.approx(
        flops.step_gmacs(model, weight_gradients=weights), rel=1e-9
    )


def test_windows_are_counted_as_torch_counts_them_on_numbers():
    from torch.utils.flop_counter import FlopCounterMode

    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, window_size=7, embed_dim=24, depths=(1, 1),
        num_heads=(2, 2), num_classes=3,
    ).eval()  # fmt: skip
    for block in model.modules():
        if hasattr(block, "fused_attn"):
            block.fused_attn = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, 56, 56))
    assert flops.exact_gmacs(model, image_size=56) == pytest.approx(
        counter.get_total_flops() / 2e9, rel=1e-12
    )


def test_a_vit_with_an_attention_of_its_own_is_counted_by_what_it_computes():
    from timm.models.vision_transformer import Attention

    class Twice(Attention):
        def forward(self, x, **further):
            return super().forward(super().forward(x))

    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    model.pretrained_cfg = {"input_size": (3, 16, 16)}
    plain = flops.exact_gmacs(model)
    model.blocks[0].attn.__class__ = Twice
    attention = 5 * 4 * 16**2 + 2 * 5**2 * 16
    assert flops.exact_gmacs(model) == pytest.approx(plain + attention / 1e9, rel=1e-9)
