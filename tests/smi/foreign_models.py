"""ViTs of torchvision and transformers, small and with random weights."""

import torch
import torchvision
import transformers
from torch import nn

EQUAL = {"rtol": 1e-5, "atol": 1e-5}
ViT, DeiT, Dino = transformers.ViTConfig, transformers.DeiTConfig, transformers.Dinov2Config
Registers, Tower = transformers.Dinov2WithRegistersConfig, transformers.CLIPVisionConfig
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
WIDE = {"intermediate_size": 40}


def theirs(kind, config, **settings):
    return lambda: getattr(transformers, kind)(config(**{**SMALL, "num_labels": 5, **settings}))


def of_torchvision(**settings):
    small = {
        "image_size": 32,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 3,
        "hidden_dim": 24,
        "mlp_dim": 40,
    }
    return lambda: torchvision.models.VisionTransformer(**{**small, "num_classes": 5, **settings})


def clip(kind="CLIPForImageClassification", **settings):
    vision = Tower(**{**SMALL, **WIDE, **settings}).to_dict()
    if kind != "CLIPForImageClassification":
        return lambda: getattr(transformers, kind)(Tower(**vision))
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return lambda: getattr(transformers, kind)(
        transformers.CLIPConfig(vision_config=vision, text_config=text, num_labels=5)
    )


CLASSIFIERS = {
    "torchvision": of_torchvision(),
    "torchvision, other sizes": of_torchvision(image_size=48, patch_size=16, num_layers=3, mlp_dim=31),
    "torchvision, other eps": of_torchvision(norm_layer=lambda width: nn.LayerNorm(width, eps=1e-3)),
    "ViT": theirs("ViTForImageClassification", ViT, **WIDE),
    "ViT, not square": theirs("ViTForImageClassification", ViT, image_size=[24, 40], **WIDE),
    "ViT, one channel, other eps": theirs(
        "ViTForImageClassification", ViT, num_channels=1, layer_norm_eps=1e-2, qkv_bias=False, **WIDE
    ),
    "ViT, tanh's GELU": theirs("ViTForImageClassification", ViT, hidden_act="gelu_pytorch_tanh", **WIDE),
    "DeiT": theirs("DeiTForImageClassification", DeiT, **WIDE),
    "DeiT with teacher": theirs("DeiTForImageClassificationWithTeacher", DeiT, patch_size=4, **WIDE),
    "DINOv2": theirs("Dinov2ForImageClassification", Dino),
    "DINOv2, SwiGLU": theirs("Dinov2ForImageClassification", Dino, use_swiglu_ffn=True, layer_norm_eps=1e-3),
    "DINOv2 with registers": theirs("Dinov2WithRegistersForImageClassification", Registers),
    "CLIP": clip(),
    "CLIP, GELU, other eps": clip(hidden_act="gelu", layer_norm_eps=1e-2, patch_size=4),
    "CLIP with projection": clip("CLIPVisionModelWithProjection", projection_dim=7),
}
BACKBONES = {
    "torchvision": (of_torchvision(), lambda out: out),
    "ViT": (theirs("ViTModel", ViT, **WIDE), lambda out: out.last_hidden_state[:, 0]),
    "DINOv2": (theirs("Dinov2Model", Dino), lambda out: out.last_hidden_state[:, 0]),
    "DINOv2 with registers": (
        theirs("Dinov2WithRegistersModel", Registers),
        lambda out: out.last_hidden_state[:, 0],
    ),
    "CLIP": (clip("CLIPVisionModel"), lambda out: out.pooler_output),
}
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_resize": True,
    "do_center_crop": True,
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 32, "width": 32},
    "resample": 2,
}


def made(make):
    """The model with weights that hide no mistake: their libraries start from zero heads, biases and tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 4
                parameter.normal_(std=fan_in**-0.5)
    return model


def logits(model, image):
    with torch.no_grad():
        out = model(image)
    if isinstance(out, torch.Tensor):
        return out
    return out["logits"] if "logits" in out else out["image_embeds"]


def picture(model, count=2):
    return torch.randn(count, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(1))
