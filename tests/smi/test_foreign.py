"""Models of torchvision and transformers, converted: the original's logits, its normalisation, or a refusal by name."""

import copy
import json
import subprocess
import sys
import warnings

import pytest
import torch
import transformers
from foreign_models import (
    BACKBONES,
    CLASSIFIERS,
    EQUAL,
    PROCESSOR,
    SMALL,
    WIDE,
    Dino,
    Registers,
    ViT,
    logits,
    made,
    of_torchvision,
    picture,
    theirs,
)
from torch import nn
from torch.testing import assert_close

import smi
from smi.vit import adapt, normalisation


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Most models here have no image processor; one test looks at the warning."""
    yield


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_converted_model_has_the_originals_logits(name):
    original = made(CLASSIFIERS[name])
    before = copy.deepcopy(original.state_dict())
    converted = smi.to_timm(original)
    image = picture(converted)
    assert_close(logits(converted, image), logits(original, image), **EQUAL)
    assert_close(adapt(converted).forward(image), logits(original, image), **EQUAL)
    assert all(value.equal(before[key]) for key, value in original.state_dict().items())
    assert not converted.training and smi.to_timm(converted) is converted


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if not n.startswith("torchvision")])
def test_a_folder_of_save_pretrained_is_the_model(name, tmp_path):
    original = made(CLASSIFIERS[name])
    original.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5], "image_std": [0.2]}))
    converted = smi.to_timm(tmp_path)
    image = picture(converted)
    assert_close(logits(converted, image), logits(original, image), **EQUAL)
    assert normalisation(converted)[0].flatten()[0] == 0.5


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_the_class_token(name):
    make, features = BACKBONES[name]
    original = made(make)
    if name == "torchvision":
        original.heads = nn.Identity()
    converted = smi.to_timm(original)
    image = picture(converted)
    assert converted.num_classes == 0
    with torch.no_grad():
        assert_close(converted(image), features(original(image)), **EQUAL)


@pytest.mark.parametrize("kind, config", [("Dinov2", Dino), ("Dinov2WithRegisters", Registers)])
def test_dinov2_resamples_its_positions_as_its_library_does(kind, config, tmp_path):
    original = made(theirs(f"{kind}ForImageClassification", config))
    converted = smi.to_timm(original, image_size=(48, 24))
    image = picture(converted)
    assert image.shape[2:] == (48, 24)
    assert_close(logits(converted, image), logits(original, image), **EQUAL)
    original.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**PROCESSOR, "crop_size": {"height": 48, "width": 48}})
    )
    assert smi.to_timm(tmp_path).pretrained_cfg["input_size"] == (3, 48, 48)


@pytest.mark.parametrize("replace", ["heads", "heads.head", "heads[0]"])
def test_a_new_head_of_a_torchvision_model_is_taken(replace):
    original = made(of_torchvision())
    head = nn.Linear(24, 3)
    if replace == "heads":
        original.heads = head
    elif replace == "heads.head":
        original.heads.head = head
    else:
        original.heads[0] = head
    converted = smi.to_timm(original)
    assert_close(logits(converted, picture(converted)), logits(original, picture(converted)), **EQUAL)


def test_the_image_processor_gives_normalisation_and_the_config_the_labels(tmp_path):
    labels = {0: "cat", 1: "dog", 2: "cow", 3: "hen", 4: "pig"}
    original = made(theirs("ViTForImageClassification", ViT, id2label=labels, **WIDE))
    processor = transformers.ViTImageProcessor(
        **{k: v for k, v in PROCESSOR.items() if k.startswith("image_")}
    )
    for given in (PROCESSOR, processor):
        config = smi.to_timm(original, processor=given).pretrained_cfg
        assert config["mean"] == (0.5, 0.4, 0.3) and config["std"] == (0.2, 0.3, 0.4)
        assert config["label_names"] == ("cat", "dog", "cow", "hen", "pig")
    assert smi.to_timm(original, processor=PROCESSOR).pretrained_cfg["crop_pct"] == 32 / 40
    original.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "rescale_factor": 2 / 255}))
    again = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    for found in (smi.to_timm(tmp_path), smi.to_timm(again)):
        mean, std = normalisation(found)
        assert_close(mean.flatten(), torch.tensor([0.25, 0.2, 0.15]))
        assert_close(std.flatten(), torch.tensor([0.1, 0.15, 0.2]))


def test_a_model_whose_normalisation_nobody_knows_is_taken_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="no image processor says how pictures are normalised"):
        smi.to_timm(made(CLASSIFIERS["ViT"]))
    made(CLASSIFIERS["ViT"]).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"no image processor says .*mean \[0\.485, "):
        smi.to_timm(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = smi.to_timm(tmp_path).pretrained_cfg
        smi.to_timm(made(CLASSIFIERS["ViT"]), processor=PROCESSOR)
    assert config["crop_mode"] == "center"


def test_a_config_that_leaves_the_layer_norms_epsilon_out_means_its_librarys(tmp_path):
    original = made(CLASSIFIERS["ViT"])
    original.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    assert smi.to_timm(tmp_path).norm.eps == original.config.layer_norm_eps == 1e-12


class Derived(transformers.ViTForImageClassification):
    def forward(self, *inputs, **options):
        return super().forward(*inputs, **options)


def beit():
    return transformers.BeitForImageClassification(transformers.BeitConfig(**SMALL, **WIDE, num_labels=5))


def watched():
    model = made(CLASSIFIERS["ViT"])
    model.vit.layers[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def of_two_layers():
    return of_torchvision(representation_size=8)()


REFUSED = {
    "BeitForImageClassification of transformers is not handled .*relative positions": beit,
    "Derived is derived from ViTForImageClassification": lambda: Derived(ViT(**SMALL, **WIDE)),
    "answers otherwise than the original": watched,
    "heads must be one linear layer": of_two_layers,
    "activation 'mish' is not handled": theirs("ViTForImageClassification", ViT, hidden_act="mish", **WIDE),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_handled_is_refused_by_name(message):
    model = REFUSED[message]()
    with pytest.raises(smi.UnsupportedModel, match=message) as caught:
        smi.to_timm(model)
    assert "\n" not in str(caught.value)


def test_damaged_folders_are_refused_in_one_line(tmp_path):
    def refused(message):
        with pytest.raises(smi.UnsupportedModel, match=message) as caught:
            smi.to_timm(tmp_path)
        assert "\n" not in str(caught.value)

    refused("there is no config.json")
    made(CLASSIFIERS["ViT"]).save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused("model.safetensors: damaged")
    (tmp_path / "model.safetensors").unlink()
    refused("there is no model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": 64}))
    refused("17 positions for a grid of 8 x 8")
    (tmp_path / "config.json").write_text("{")
    refused("config.json: not readable as JSON")
    beit().save_pretrained(tmp_path)
    refused("BeitForImageClassification of transformers is not handled")
    with pytest.raises(smi.UnsupportedModel, match="no such folder"):
        smi.to_timm(tmp_path / "elsewhere")


class FullyShardedDataParallel(nn.Module):
    """Stands for torch's, which needs a process group."""


WRONG = ("x", None, -1, [], {}, [1], {"a": 1}, 1e9, True, {"0": 5}, {"x": "cat"})


@pytest.mark.filterwarnings("ignore:.*no image processor says")
@pytest.mark.parametrize("name", ["ViT", "DINOv2"])
def test_wrong_values_in_a_folder_are_refused_in_one_line(name, tmp_path):
    made(CLASSIFIERS[name]).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    refused = 0
    for file in ("config.json", "preprocessor_config.json"):
        sound = json.loads((tmp_path / file).read_text())
        for key, value in [(key, value) for key in sound for value in WRONG]:
            (tmp_path / file).write_text(json.dumps({**sound, key: value}))
            try:
                smi.to_timm(tmp_path)
            except smi.UnsupportedModel as error:
                refused += 1
                assert "\n" not in str(error)
        (tmp_path / file).write_text(json.dumps(sound))
    assert refused > 20
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    for index in ('{"weight_map": []}', '{"weight_map": 3}', '{"weight_map": {"a": "gone.safetensors"}}'):
        (tmp_path / "model.safetensors.index.json").write_text(index)
        with pytest.raises(smi.UnsupportedModel):
            smi.to_timm(tmp_path)


def test_wrappers_are_taken_off(tiny_vit):
    model = tiny_vit()
    compiled = torch.compile(model)
    assert smi.to_timm(compiled) is model and smi.to_timm(nn.DataParallel(compiled)) is model
    with pytest.raises(smi.UnsupportedModel, match="is sharded"):
        smi.to_timm(FullyShardedDataParallel())


@pytest.mark.slow
def test_converting_needs_neither_library(tmp_path):
    made(CLASSIFIERS["ViT"]).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        f"import smi; print(smi.to_timm({str(tmp_path)!r}).num_classes)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "5", done.stderr


def test_what_is_made_of_a_converted_model_is_made_of_the_original():
    """Inversion and transfer take the original, its wrappers too, and give what they give for the converted model."""
    teacher, student = made(of_torchvision()), made(theirs("ViTForImageClassification", ViT, **WIDE))
    stopping = smi.Stopping(at=2, drop=0.5)
    images = smi.invert(nn.DataParallel(teacher), count=2, iterations=4, stopping=stopping)
    again = smi.invert(smi.to_timm(teacher), count=2, iterations=4, stopping=stopping)
    assert images.pixels.equal(again.pixels) and images.kept.equal(again.kept)
    learned = smi.transfer(teacher, student, images, steps=2)
    assert type(learned) is type(smi.to_timm(student))
    expected = smi.transfer(smi.to_timm(teacher), smi.to_timm(student), images, steps=2)
    for value, wanted in zip(learned.parameters(), expected.parameters(), strict=True):
        assert value.equal(wanted)
    small = smi.quantize(nn.DataParallel(teacher), images)
    of_converted = smi.quantize(smi.to_timm(teacher), images)
    image = picture(smi.to_timm(teacher))
    assert small(image).equal(of_converted(image))
    again = smi.QuantizedViT(teacher, 4, 8)
    again.load_state_dict(small.state_dict())
    assert again(image).equal(small(image))
    # DINOv2's head reads the mean of the patches that are kept, beside the class token
    dense = smi.invert(made(CLASSIFIERS["DINOv2"]), count=2, iterations=2)
    assert dense.pixels.shape == (2, 3, 32, 32)


def test_inverting_a_backbone_is_refused_with_what_to_do():
    with pytest.raises(
        smi.UnsupportedModel, match=r"num_classes=0.*reset_classifier.*quantize it with pictures"
    ):
        smi.invert(made(BACKBONES["ViT"][0]), count=1, iterations=1)


@pytest.mark.parametrize("name", ["DeiT", "DeiT with teacher", "DINOv2", "DINOv2 with registers", "CLIP"])
def test_eight_bits_are_near_the_original(name):
    original = made(CLASSIFIERS[name])
    images = smi.invert(original, count=4, iterations=2)
    image = (images.pixels - normalisation(smi.to_timm(original))[0]) / normalisation(smi.to_timm(original))[
        1
    ]
    wanted = logits(original, image)
    answered = smi.quantize(original, images, 8, 8)(image)
    assert (answered - wanted).norm() < 0.1 * wanted.norm()


def test_a_backbone_is_quantized_on_pictures_of_ones_own():
    original = made(BACKBONES["ViT"][0])
    pictures = smi.SyntheticImages(torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    small = smi.quantize(original, pictures, 8, 8)
    assert small(picture(smi.to_timm(original))).shape == (2, 24)
