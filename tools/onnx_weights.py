"""The weights of a Llama-like decoder in an ONNX file, by what they are, to be read and changed.

Exporters name tensors as they like, but name MatMul nodes and gains of norms after the modules of the
model: .../layers.N/.../q_proj/MatMul, layers.N.input_layernorm.weight.  Needs Debian's python3-onnx.
"""
import re

import numpy as np
import onnx
from onnx import numpy_helper

LINEAR = re.compile(r"layers[./](\d+)/.*\b([qkvo]|gate|up|down)_proj/MatMul$|(lm_head)/MatMul$")
GAIN = re.compile(r"layers\.(\d+)\.(input|post_attention)_layernorm\.weight$|(?:^|\.)(norm)\.weight$")
IN_LAYER = {"q", "k", "v", "o", "gate", "up", "down", "input", "post_attention"}


class Weights:
    """`layers[i]` has a matrix [in, out] for each linear (q, k, v, o, gate, up, down) and a vector
    for each gain (input, post_attention); `top` has lm_head, norm and embedding.  All are arrays
    that may be changed, and `save` writes."""

    def __init__(self, path):
        self.model = onnx.load(path)
        graph = self.model.graph
        tensors = {t.name: t for t in graph.initializer}
        self.arrays, found = {}, {}

        def take(key, name):
            if name in tensors:
                self.arrays[name] = found[key] = np.array(numpy_helper.to_array(tensors[name]))
        for node in graph.node:
            match = LINEAR.search(node.name)
            if node.op_type == "MatMul" and match:
                take((int(match[1]), match[2]) if match[1] else (-1, match[3]), node.input[1])
            if node.op_type == "Gather" and node.input[1] == "input_ids":
                take((-1, "embedding"), node.input[0])
        for name in tensors:
            match = GAIN.search(name)
            if match:
                take((int(match[1]), match[2]) if match[1] else (-1, match[3]), name)
        self.layers = [{} for _ in range(1 + max((i for i, _ in found), default=-1))]
        self.top = {}
        for (i, kind), array in found.items():
            (self.layers[i] if i >= 0 else self.top)[kind] = array
        if not self.layers or any(set(layer) != IN_LAYER for layer in self.layers) or \
                set(self.top) != {"lm_head", "norm", "embedding"}:
            raise ValueError(f"{path}: not the layers of a Llama-like decoder")
        shape = {x.name: x for x in graph.input}["past_key_values.0.key"].type.tensor_type.shape
        self.head_size = shape.dim[3].dim_value

    def save(self, path):
        for tensor in self.model.graph.initializer:
            if tensor.name in self.arrays:
                tensor.CopyFrom(numpy_helper.from_array(self.arrays[tensor.name], tensor.name))
        onnx.save(self.model, path)


def add_outliers(weights, sites, count, low, high, seed):
    """Multiply `count` channels by powers of two in low..high and divide what reads them: the model
    computes the same, to the bit as far as no number leaves the range of floats.  `sites`: norm
    (the same channels in all norms, as in large models), updown, vo."""
    rng = np.random.default_rng(seed)
    powers = [2.0 ** i for i in range(16) if low <= 2 ** i <= high]

    def factors():
        return rng.choice(powers, count).astype(np.float32)

    if "norm" in sites:
        channels = rng.choice(len(weights.top["norm"]), count, replace=False)
        readers = [(layer[gain], [layer[kind] for kind in kinds]) for layer in weights.layers
                   for gain, kinds in (("input", "qkv"), ("post_attention", ("gate", "up")))]
        for gain, matrices in readers + [(weights.top["norm"], [weights.top["lm_head"]])]:
            by = factors()
            gain[channels] *= by
            for matrix in matrices:
                matrix[channels] /= by[:, None]
    for layer in weights.layers:
        if "updown" in sites:
            channels, by = rng.choice(layer["up"].shape[1], count, replace=False), factors()
            layer["up"][:, channels] *= by
            layer["down"][channels] /= by[:, None]
        if "vo" in sites:  # rows of o: heads that share a value head lie beside each other
            channels, by = rng.choice(layer["v"].shape[1], count, replace=False), factors()
            layer["v"][:, channels] *= by
            rows = layer["o"].reshape(layer["v"].shape[1] // weights.head_size, -1, weights.head_size,
                                      layer["o"].shape[1])
            for channel, factor in zip(channels, by):
                rows[channel // weights.head_size, :, channel % weights.head_size] /= factor
