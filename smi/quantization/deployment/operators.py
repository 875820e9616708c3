"""Each part of a quantized ViT as ONNX operators: quantizers, products, norms, activation functions, pooling.

Shapes: B images, N tokens, D width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy
import torch
from onnx import TensorProto
from torch import Tensor, nn

from smi.class_and_mean import ClassAndMeanViT
from smi.errors import UnsupportedModel
from smi.quantization import parts
from smi.quantization.deployment.writer import GraphWriter, Product
from smi.quantization.layers import QuantizedConv2d, QuantizedLinear
from smi.quantization.saving import pack
from smi.quantizers import ActivationQuantizer, LogSqrt2Quantizer


def quantizer(graph: GraphWriter, x: str, module: nn.Module, name: str) -> str:
    """QuantizeLinear to uint8 and DequantizeLinear, or float arithmetic where integers cannot express the levels."""
    if not isinstance(module, ActivationQuantizer):
        return x
    if not in_float(module):
        as_before = graph.steps.get(x)
        if as_before and as_before.bits == module.bits and as_before.found == module.found:
            return x  # twice is once; and OpenVINO 2026.4 crashes on two in a row
        return _as_uint8(graph, x, module, name)
    if isinstance(module, LogSqrt2Quantizer):
        return _log_sqrt2(graph, x, module, name)
    levels = 2**module.bits - 1
    shift = module.low if module.grid == "floor" else None
    x = x if shift is None else graph.arithmetic("Sub", x, shift, f"{name}.above")
    x = graph.arithmetic("Div", x, module.scale, f"{name}.scaled")
    x = graph.op("Round" if shift is None else "Floor", [x], f"{name}.rounded")
    x = x if shift is not None else graph.arithmetic("Add", x, module.zero, f"{name}.steps")
    x = _clip(graph, x, 0.0, float(levels), f"{name}.clipped")
    x = x if shift is not None else graph.arithmetic("Sub", x, module.zero, f"{name}.centred")
    x = graph.arithmetic("Mul", x, module.scale, f"{name}.levels")
    return x if shift is None else graph.arithmetic("Add", x, shift, f"{name}.quantized")


def in_float(module: ActivationQuantizer) -> str:
    """Why a quantizer's levels are not uint8 steps times a scale; empty where they are."""
    if isinstance(module, LogSqrt2Quantizer):
        return "the softmax output is on a grid of powers of sqrt 2"
    if module.grid == "floor":
        return "the slides' quantizer rounds down from the least value"
    zero = module.zero
    if not bool((zero == zero.round()).all()):
        return "the reparameterised zero point is no whole number"
    return "" if bool(((zero >= 0) & (zero <= 255)).all()) else "the zero point is no uint8"


def _as_uint8(graph: GraphWriter, x: str, module: ActivationQuantizer, name: str) -> str:
    zero, scale, levels = module.zero, module.scale, 2**module.bits - 1
    if (
        module.bits < 8
    ):  # uint8 has more levels than these: what lies beyond them is cut off before, which is exact
        x = _clip(graph, x, (0 - zero) * scale, (levels - zero) * scale, f"{name}.clipped")
    how = [
        graph.constant(f"{name}.scale", scale),
        graph.constant(f"{name}.zero_point", zero.to(torch.uint8)),
    ]
    x = graph.op("QuantizeLinear", [x, *how], f"{name}.uint8")
    x = graph.op("DequantizeLinear", [x, *how], f"{name}.quantized")
    graph.steps[x] = module
    return x


def _clip(graph: GraphWriter, x: str, low: Tensor | float, high: Tensor | float, name: str) -> str:
    ends = [graph.constant(f"{name}.low", low), graph.constant(f"{name}.high", high)]
    return graph.op("Clip", [x, *ends], name)


def _log_sqrt2(graph: GraphWriter, x: str, module: LogSqrt2Quantizer, name: str) -> str:
    levels = 2**module.bits
    x = graph.op("Relu", [x], f"{name}.positive")
    x = graph.op("Log", [graph.arithmetic("Div", x, module.scale, f"{name}.share")], f"{name}.log")
    steps = graph.op(
        "Round", [graph.arithmetic("Mul", x, -2 / math.log(2), f"{name}.log2")], f"{name}.rounded"
    )
    inside = _clip(graph, steps, 0.0, float(levels - 1), f"{name}.inside")
    half = graph.op("Ceil", [graph.arithmetic("Mul", inside, 0.5, f"{name}.half")], f"{name}.exponent")
    power = graph.op("Exp", [graph.arithmetic("Mul", half, -math.log(2), f"{name}.halved")], f"{name}.power")
    odd = graph.op("Mod", [inside, graph.constant(f"{name}.two", 2.0)], f"{name}.odd", fmod=1)
    factor = graph.arithmetic("Mul", odd, math.sqrt(2) - 1, f"{name}.more")
    factor = graph.arithmetic("Add", factor, 1.0, f"{name}.factor")
    values = graph.arithmetic(
        "Mul", graph.op("Mul", [power, factor], f"{name}.shares"), module.scale, f"{name}.values"
    )
    small = graph.op("Less", [steps, graph.constant(f"{name}.levels", float(levels))], f"{name}.is_a_level")
    return graph.op("Where", [small, values, graph.constant(f"{name}.nothing", 0.0)], f"{name}.quantized")


def linear(
    graph: GraphWriter,
    x: str,
    layer: QuantizedLinear | QuantizedConv2d,
    name: str,
    reader: nn.Module,
    packing: str,
) -> str:
    """x [..., in] times the layer's weight plus its bias; reader: the quantizer that x came through."""
    because = ""
    if x not in graph.steps:
        because = (
            in_float(reader) if isinstance(reader, ActivationQuantizer) else "its input is not quantized"
        )
    elif not _has_zero_points(layer, packing):
        because = "its weights have an offset that is no integer zero point"
    weight = _weight(graph, layer, f"{name}.weight", packing, bool(because))
    if layer.is_quantized:
        unpacked = "weights packed as int4 are unpacked to float" if packing == "int4" else ""
        graph.products.append(Product(name, because or unpacked))
    product = graph.op("MatMul", [x, weight], f"{name}.product")
    return product if layer.bias is None else graph.arithmetic("Add", product, layer.bias, name)


def product(
    graph: GraphWriter, left: str, right: str, readers: tuple[nn.Module, nn.Module], name: str
) -> str:
    """left times right, one of attention's two products; counted where both were quantized."""
    found = [one for one in readers if isinstance(one, ActivationQuantizer)]
    if len(found) == 2:
        graph.products.append(Product(name, next((why for one in found if (why := in_float(one))), "")))
    return graph.op("MatMul", [left, right], name)


def _has_zero_points(layer: QuantizedLinear | QuantizedConv2d, packing: str) -> bool:
    least, most = (-8, 7) if packing == "int4" else (-128, 127)
    zero, offset = layer.zero, layer.offset
    whole = (offset == 0).all() and (zero == zero.round()).all() and (zero >= least).all()
    return bool(whole and (zero <= most).all())


def _weight(
    graph: GraphWriter, layer: QuantizedLinear | QuantizedConv2d, name: str, packing: str, in_float: bool
) -> str:
    """The weight [in, out], stored as integers.

    For a product in float it is spelled out: DequantizeLinear before it would have onnxruntime round the other operand
    to 8 bits (MatMulNBits).
    """
    if not layer.is_quantized:
        return graph.constant(name, layer.weight.flatten(1).T)
    codes = layer.codes.flatten(1).T.contiguous()
    scale, zero, offset = (one.flatten() for one in (layer.scale, layer.zero, layer.offset))

    def integers(kind: str, values: Tensor) -> str:
        values = values.to(torch.int8).cpu()
        if packing == "int4":
            return graph.int4(f"{name}.{kind}", pack(values), values.shape)
        return graph.constant(f"{name}.{kind}", values)

    stored = integers(packing, codes)
    if (
        not in_float
    ):  # the zero point stands there even if it is 0: onnxruntime makes one of a wrong shape else
        inputs = [stored, graph.constant(f"{name}.scale", scale), integers("zero_point", zero)]
        return graph.op("DequantizeLinear", inputs, f"{name}.dequantized", axis=1)
    if packing == "int4":
        one = graph.constant(f"{name}.one", 1.0)
        weight = graph.op("DequantizeLinear", [stored, one], f"{name}.as_float")
    else:
        weight = graph.op("Cast", [stored], f"{name}.as_float", to=TensorProto.FLOAT)
    weight = graph.arithmetic("Mul", weight, scale, f"{name}.scaled")
    shift = offset - zero * scale
    return graph.arithmetic("Add", weight, shift, f"{name}.shifted") if shift.any() else weight


def part(graph: GraphWriter, x: str, module: Any, name: str) -> str:
    """A norm, a layer scale or an activation function, in float."""
    of = parts.describe(name, module)
    kind = of["kind"]
    if kind == "Identity":
        return x
    if kind == "LayerNorm":
        weight = module.weight if of["weight"] else torch.ones(of["width"])
        inputs = [x, graph.constant(f"{name}.weight", weight)]
        inputs += [graph.constant(f"{name}.bias", module.bias)] if of["bias"] else []
        return graph.op("LayerNormalization", inputs, name, axis=-1, epsilon=of["eps"])
    if kind == "RmsNorm":
        square = graph.op("Mul", [x, x], f"{name}.square")
        axes = graph.shape(f"{name}.axes", -1)
        mean = graph.op("ReduceMean", [square, axes], f"{name}.mean", keepdims=1)
        root = graph.op("Sqrt", [graph.arithmetic("Add", mean, of["eps"], f"{name}.more")], f"{name}.root")
        normed = graph.op("Div", [x, root], f"{name}.normed")
        return graph.arithmetic("Mul", normed, module.weight, name) if of["weight"] else normed
    if kind == "LayerScale":
        return graph.arithmetic("Mul", x, module.gamma, name)
    if kind in ("GELU", "GELUTanh"):
        return graph.op("Gelu", [x], name, approximate="tanh" if kind == "GELUTanh" else "none")
    if kind in ("SiLU", "QuickGELU"):
        inner = graph.arithmetic("Mul", x, 1.702, f"{name}.steeper") if kind == "QuickGELU" else x
        return graph.op("Mul", [x, graph.op("Sigmoid", [inner], f"{name}.gate")], name)
    return graph.op({"ReLU": "Relu"}.get(kind, kind), [x], name)


def pool(graph: GraphWriter, x: str, model: Any, patches: int) -> str:
    """Tokens [B, N, D], `patches` of them behind the prefix -> what the head reads, as timm's pool(): [B, D]."""
    kind = model.global_pool
    if not kind:
        return x
    if kind == "token":
        return _first(graph, x)
    if kind not in ("avg", "max", "avgmax"):
        raise UnsupportedModel(f"pooling {kind!r} has no ONNX form; allowed: token, avg, max, avgmax")
    first = 0 if getattr(model, "pool_include_prefix", False) else model.num_prefix_tokens
    tokens = patches + model.num_prefix_tokens - first
    all_tokens = x
    if first:
        ends = {"start": first, "end": numpy.iinfo(numpy.int64).max, "axis": 1}
        x = graph.op(
            "Slice", [x, *(graph.shape(f"pool.{end}", at) for end, at in ends.items())], "pool.patches"
        )
    if "max" in kind:
        most = graph.op("ReduceMax", [x, graph.shape("pool.axes", 1)], "pool.most", keepdims=0)
    if kind == "max":
        return most
    # a product, since OpenVINO 2026.4 takes the mean of quantized values wrongly
    shares = torch.full((1, 1, tokens), 1 / tokens)
    mean = graph.op("MatMul", [graph.constant("pool.shares", shares), x], "pool.mean_of_image")
    mean = graph.op("Squeeze", [mean, graph.shape("pool.squeezed", 1)], "pool.mean")
    if isinstance(model, ClassAndMeanViT):
        return graph.op("Concat", [_first(graph, all_tokens), mean], "pool", axis=1)
    if kind == "avg":
        return mean
    return graph.arithmetic("Mul", graph.op("Add", [most, mean], "pool.sum"), 0.5, "pool")


def _first(graph: GraphWriter, x: str) -> str:
    """The class token [B, D]."""
    return graph.op("Gather", [x, graph.constant("pool.first", 0, numpy.int64)], "pool.class", axis=1)
