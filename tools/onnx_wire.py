"""Writes ONNX models: the few protobuf messages that a model needs, by hand.

Why by hand: a model of many gigabytes is written tensor by tensor, each straight into the file of
external data, so memory stays small; and nothing but numpy need be installed.  Only fields that
models of make_model, train_decoder, bench and tests/export use are here.
"""
import math
import os
import struct

import numpy as np

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16 = 1, 2, 3, 6, 7, 9, 10
_NUMPY = {FLOAT: "<f4", UINT8: "u1", INT8: "i1", INT32: "<i4", INT64: "<i8", BOOL: "?", FLOAT16: "<f2"}
_CHUNK = 1 << 22    # numbers made at a time
_PAGE = 4096        # external tensors start on pages, so that readers can map them


# ---- wire format ---------------------------------------------------------

def _varint(n):
    n &= (1 << 64) - 1  # negative numbers are written in two's complement
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _int(field, n):
    return _varint(field << 3) + _varint(n)


def _bytes(field, data):
    if isinstance(data, str):
        data = data.encode()
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _float(field, x):
    return _varint(field << 3 | 5) + struct.pack("<f", x)


def _attribute(name, value):
    out = _bytes(1, name)
    if isinstance(value, float):
        return out + _float(2, value) + _int(20, 1)
    if isinstance(value, int):
        return out + _int(3, value) + _int(20, 2)
    if isinstance(value, str):
        return out + _bytes(4, value) + _int(20, 3)
    if isinstance(value, np.ndarray):
        elem = next(e for e, dtype in _NUMPY.items() if np.dtype(dtype) == value.dtype)
        return out + _bytes(5, _tensor(name, elem, value.shape) + _bytes(9, value.tobytes())) + _int(20, 4)
    if isinstance(value, Graph):
        return out + _bytes(6, value.message(name)) + _int(20, 5)
    return out + b"".join(_int(8, v) for v in value) + _int(20, 7)


def _value_info(name, elem, dims):
    shape = b"".join(_bytes(1, _bytes(2, d) if isinstance(d, str) else _int(1, d)) for d in dims)
    tensor = _int(1, elem) + _bytes(2, shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def _tensor(name, elem, dims):
    return b"".join(_int(1, d) for d in dims) + _int(2, elem) + _bytes(8, name)


# ---- models --------------------------------------------------------------

class Graph:
    """Nodes, constants, inputs and outputs: of a model, or a body that is an attribute of a node, which sees the
    names around it."""

    def __init__(self):
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self.known = set()

    def input(self, name, elem, dims):
        self.inputs.append(_value_info(name, elem, dims))
        return name

    def output(self, name, elem, dims):
        self.outputs.append(_value_info(name, elem, dims))
        return name

    def node(self, op, inputs, name, outputs=None, domain="", **attributes):
        """Adds a node; by default it has one output.  Returns the name of the first."""
        outputs = outputs or [name + "_output_0"]
        out = b"".join(_bytes(1, x) for x in inputs) + b"".join(_bytes(2, x) for x in outputs)
        out += _bytes(3, name) + _bytes(4, op)
        out += b"".join(_bytes(5, _attribute(k, v)) for k, v in attributes.items())
        self.nodes.append(out + (_bytes(7, domain) if domain else b""))
        return outputs[0]

    def constant(self, name, values, elem):
        """A small tensor kept in the model; a name that exists is taken to be the same tensor."""
        if name not in self.known:
            self.known.add(name)
            a = np.asarray(values, _NUMPY[elem])
            self.initializers.append(_tensor(name, elem, a.shape) + _bytes(9, a.tobytes()))
        return name

    def ints(self, *values):
        return self.constant("ints_" + "_".join(map(str, values)), values, INT64)

    def int(self, value):
        return self.constant(f"int_{value}", value, INT64)

    def float(self, value):
        return self.constant(f"float_{value:.9g}", value, FLOAT)

    def message(self, name):
        graph = _bytes(2, name)
        for field, messages in ((1, self.nodes), (5, self.initializers), (11, self.inputs), (12, self.outputs)):
            graph += b"".join(_bytes(field, m) for m in messages)
        return graph


class Model(Graph):
    """A model being written to `path`; weights go to `path`.data when `external`."""

    def __init__(self, path, external, domains=(("", 17),), seed=0):
        super().__init__()
        self.path, self.domains, self.seed = path, domains, seed
        self.count = 0
        self.data = open(path + ".data", "wb") if external else None

    def weight(self, name, elem, dims, make):
        """A large tensor: `make(rng, n)` returns its next n numbers.  What it makes depends on the
        model's seed and on how many weights came before only."""
        rng = np.random.default_rng([self.seed, self.count])
        self.count += 1
        total = math.prod(dims)
        parts = (np.asarray(make(rng, min(_CHUNK, total - i)), _NUMPY[elem]).tobytes()
                 for i in range(0, total, _CHUNK))
        if not self.data:
            self.initializers.append(_tensor(name, elem, dims) + _bytes(9, b"".join(parts)))
            return name
        self.data.seek(-self.data.tell() % _PAGE, os.SEEK_CUR)
        start = self.data.tell()
        self.data.writelines(parts)
        entries = (("location", os.path.basename(self.path) + ".data"), ("offset", str(start)),
                   ("length", str(self.data.tell() - start)))
        self.initializers.append(
            _tensor(name, elem, dims) +
            b"".join(_bytes(13, _bytes(1, k) + _bytes(2, v)) for k, v in entries) + _int(14, 1))
        return name

    def normal(self, name, dims, scale, mean=0.0):
        """A float tensor of normally distributed numbers."""
        return self.weight(name, FLOAT, dims, lambda rng, n: mean + np.float32(scale) *
                           rng.standard_normal(n, np.float32))

    def save(self):
        if self.data:
            self.data.close()
        model = _int(1, 8) + _bytes(2, "nibble") + _bytes(7, self.message("main_graph"))
        for domain, version in self.domains:
            model += _bytes(8, _bytes(1, domain) + _int(2, version))
        with open(self.path, "wb") as f:
            f.write(model)
