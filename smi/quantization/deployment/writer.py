"""An ONNX graph written node by node: names, constants, and which values are the steps of a uint8 quantizer.

Nothing is traced, so a file depends on no version of torch, and each product stands as runtimes look for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from smi.quantizers import ActivationQuantizer


@dataclass
class Product:
    """A matrix product whose operands are quantized: where it stands, and why it runs in float (empty: it does not)."""

    name: str
    float_because: str = ""


@dataclass
class GraphWriter:
    """Nodes and constants of a graph, in order; each method gives the name of the value it made."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    steps: dict[str, ActivationQuantizer] = field(
        default_factory=dict
    )  # values that come out of uint8 quantizers
    products: list[Product] = field(default_factory=list)

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node; its value has the node's name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{name}/{kind}", **attributes))
        return name

    def constant(self, name: str, value: Tensor | numpy.ndarray | Sequence | float, kind: Any = None) -> str:
        """A constant of a tensor's or array's own type, or of `kind` (a numpy type; float32 by default)."""
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().numpy()
        if not isinstance(value, numpy.ndarray):
            value = numpy.asarray(value, dtype=kind or numpy.float32)
        return self.add(numpy_helper.from_array(value, name))

    def int4(self, name: str, packed: Tensor, shape: Sequence[int]) -> str:
        """A constant of 4-bit integers, two a byte."""
        raw = packed.numpy().tobytes()
        return self.add(helper.make_tensor(name, TensorProto.INT4, list(shape), raw, raw=True))

    def add(self, tensor: TensorProto) -> str:
        self.constants[tensor.name] = tensor
        return tensor.name

    def shape(self, name: str, *sizes: int) -> str:
        return self.constant(name, sizes, numpy.int64)

    def reshape(self, x: str, name: str, *sizes: int) -> str:
        """0 keeps a size as it is."""
        return self.op("Reshape", [x, self.shape(f"{name}.shape", *sizes)], name)

    def transpose(self, x: str, name: str, *order: int) -> str:
        return self.op("Transpose", [x], name, perm=order)

    def arithmetic(self, kind: str, x: str, value: Tensor | float, name: str) -> str:
        """x with a constant, e.g. Add, Mul."""
        return self.op(kind, [x, self.constant(f"{name}.constant", value)], name)
