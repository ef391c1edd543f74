#!/usr/bin/python3
"""Small models of operators that stand for whole parts of a network in onnxruntime's and onnxruntime-genai's files:
experts (MoE, QMoE), a gate and queries, keys and values of one node, recurrent layers and embeddings of codes; and what
they compute, in NumPy with 64 bits.

usage: tests/export/fused_models.py FOLDER

Writes what written_models.py writes.
"""
import math

import numpy as np

from written_models import (BATCH, CONTEXT, DIM, FLOAT, HEADS, INT32, INT64, LAYERS, MS, NEW, SIZE, VOCAB, Form, attend,
                            decoder_runs, dynamic, gelu_tanh, heads, later, lengths, rotated, standardized, tables, text, write_all)
from onnx_wire import INT8, UINT8

EXPERTS, INNER = 5, 96


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


# ---- decoders ------------------------------------------------------------

class Decoder(Form):
    """A decoder of GroupQueryAttention being written: all but its layers."""

    def __init__(self, path, groups):
        super().__init__(path)
        m, self.groups = self.m, groups
        ids = m.input("input_ids", INT64, [BATCH, NEW])
        seen = lengths(m)
        m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
        self.past, self.present = self.caches(groups)
        self.operands = [*seen, *tables(self, SIZE)]
        self.x = m.node("Gather", [self.weight("embed", VOCAB, DIM, scale=1), ids], "/model/embed_tokens/Gather", axis=0)

    def attention(self, q, k, v, i):
        p = f"/model/layers.{i}/"
        y = self.m.node("GroupQueryAttention", [q, k, v, *self.past[2 * i:2 * i + 2], *self.operands], p + "GQA",
                        [p + "a", *self.present[2 * i:2 * i + 2]], MS, num_heads=HEADS, kv_num_heads=self.groups,
                        do_rotary=1, rotary_interleaved=0, local_window_size=-1)
        return self.nbits(y, p + "o_proj", DIM, DIM)

    def end(self, x, skip):
        h = self.m.node("SkipSimplifiedLayerNormalization", [x, skip, self.vector("norm", DIM, 1.0)], "/model/norm", None,
                        MS, epsilon=1e-6)
        self.m.node("MatMul", [h, self.weight("lm_head", DIM, VOCAB)], "/lm_head/MatMul", ["logits"])
        self.m.save()

    def computed(self, linear, layer):
        """What it computes: compute, runs and text, as forms return them; `layer` is what follows attention."""
        def compute(feed):
            w, presents = self.w, {}
            x = w["embed"][feed["input_ids"]]
            n, old = x.shape[1], feed[self.past[0]].shape[2]
            at = np.tile(np.arange(old, old + n), (x.shape[0], 1))
            for i in range(LAYERS):
                p = f"/model/layers.{i}/"
                h = standardized(x, 1e-6, False) * w[p + "norm_1"]
                q, k, v = (heads(linear(h, p + a), b) for a, b in (("q", HEADS), ("k", self.groups), ("v", self.groups)))
                k = np.concatenate([feed[self.past[2 * i]], rotated(k, at, SIZE)], 2)
                v = np.concatenate([feed[self.past[2 * i + 1]], v], 2)
                presents[self.present[2 * i]], presents[self.present[2 * i + 1]] = k, v
                x = x + attend(rotated(q, at, SIZE), k, v, later(n, old), SIZE ** -0.5) @ w[p + "o_proj"]
                x = x + layer(standardized(x, 1e-6, False) * w[p + "norm_2"], p)
            return {"logits": standardized(x, 1e-6, False) * w["norm"] @ w["lm_head"], **presents}

        shape = (self.groups, SIZE)
        return (compute, lambda out, rng: decoder_runs(out, rng, self.past, shape, positions=False),
                text(compute, self.past, shape))


# ---- experts -------------------------------------------------------------

def packed(f, name, rows, columns, bits, block, zeros):
    """Codes of `bits` of [EXPERTS, rows, columns], a scale for each `block` along a row (0: a row), zero points or not."""
    per = 8 // bits
    n = columns // block if block else 1
    codes = f.rng.integers(0, 2 ** bits, (EXPERTS, rows, columns)).astype("u1")
    scales = (2.0 ** -bits / math.sqrt(columns) * f.rng.uniform(2, 4, (EXPERTS, rows, n))).astype("f4")
    middle = np.full(scales.shape, 2 ** (bits - 1))
    if zeros:
        middle += f.rng.integers(-1, 2, scales.shape)
    f.w[name] = ((codes.reshape(EXPERTS, rows, n, -1) - middle[..., None]) * scales[..., None]).reshape(codes.shape)

    def pack(a):
        a = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, -a.shape[-1] % per)]).astype("u1")
        return sum(a[..., i::per] << (bits * i) for i in range(per)).astype("u1")

    return [f.m.constant(name + "_codes", pack(codes), UINT8),
            f.m.constant(name + "_scales", scales if block else scales[..., 0], FLOAT),
            f.m.constant(name + "_zeros", pack(middle if block else middle[..., 0]), UINT8) if zeros else ""]


def routed(x, scores, k, normalize, expert, weights=None):
    """Rows of x through the k best experts by `scores`; shares are theirs in the softmax over all, or of their own."""
    y = np.zeros_like(x)
    for t, row in enumerate(x):
        best = np.argsort(-scores[t], kind="stable")[:k]
        share = softmax(scores[t])[best] if weights is None else weights[t, best]
        for e, s in zip(best, share / share.sum() if normalize else share):
            y[t] += s * expert(row, e)
    return y


def swiglu(gate, up, alpha=1.0, beta=0.0, limit=np.inf):
    gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate * sigmoid(alpha * gate) * (up + beta)


def genai_moe(path):
    """A decoder whose tokens each go through two of five experts: 4-bit codes in blocks of 32, gates and what they
    multiply in turn, both within limits."""
    groups = 2
    f = Decoder(path, groups)
    m, x, skip = f.m, f.x, None
    for i in range(LAYERS):
        p = f"/model/layers.{i}/"
        gain = f.vector(p + "norm_1", DIM, 1.0)
        if skip is None:
            h = m.node("SimplifiedLayerNormalization", [x, gain], p + "LayerNorm", axis=-1, epsilon=1e-6, stash_type=1)
        else:
            h, x = m.node("SkipSimplifiedLayerNormalization", [x, skip, gain], p + "Skip_1", [p + "h1", "", "", p + "x1"],
                          MS, epsilon=1e-6), p + "x1"
        y = f.attention(*(f.nbits(h, p + n, DIM, size)
                          for n, size in (("q", DIM), ("k", groups * SIZE), ("v", groups * SIZE))), i)
        h, x = m.node("SkipSimplifiedLayerNormalization", [x, y, f.vector(p + "norm_2", DIM, 1.0)], p + "Skip_2",
                      [p + "h2", "", "", p + "x2"], MS, epsilon=1e-6), p + "x2"
        scores = m.node("Add", [m.node("MatMul", [h, f.weight(p + "router", DIM, EXPERTS)], p + "router/MatMul"),
                                f.vector(p + "router.bias", EXPERTS)], p + "router/Add")
        scores = m.node("Reshape", [scores, m.ints(-1, EXPERTS)], p + "router/Reshape")
        first = packed(f, p + "gate_up", 2 * INNER, DIM, 4, 32, False)
        second = packed(f, p + "down", DIM, INNER, 4, 32, False)
        skip = m.node("QMoE", [h, scores, *first[:2], f.weight(p + "gate_up.bias", EXPERTS, 2 * INNER, scale=0.1),
                               *second[:2], f.weight(p + "down.bias", EXPERTS, DIM, scale=0.1)], p + "QMoE", domain=MS,
                      activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.702, activation_beta=1.0,
                      swiglu_limit=0.7, normalize_routing_weights=1, k=2, expert_weight_bits=4, block_size=32)
    f.end(x, skip)

    def layer(h, p):
        def expert(row, e):
            both = f.w[p + "gate_up"][e] @ row + f.w[p + "gate_up.bias"][e]
            return f.w[p + "down"][e] @ swiglu(both[::2], both[1::2], 1.702, 1.0, 0.7) + f.w[p + "down.bias"][e]

        rows = h.reshape(-1, DIM)
        return routed(rows, rows @ f.w[p + "router"] + f.w[p + "router.bias"], 2, True, expert).reshape(h.shape)

    return f.computed(lambda h, name: h @ f.w[name], layer)


def ort_moe(path):
    """Five forms of experts in a row, each of which adds to the rows it gets: floats and codes of 2, 4 and 8 bits, with
    zero points, a scale for a row or for blocks; gates of a matrix of their own, behind each other or none; shares of
    all experts or of those chosen, or given."""
    f = Form(path)
    m = f.m
    x = m.input("x", FLOAT, ["rows", DIM])
    given = m.input("weights", FLOAT, ["rows", EXPERTS])
    m.output("y", FLOAT, ["rows", DIM])

    def bias(name, n):
        return f.weight(name, EXPERTS, n, scale=0.1)

    def floats(name, rows, columns):
        return f.weight(name, EXPERTS, rows, columns, scale=1 / math.sqrt(columns))

    def linear(name, h, e, bias=True):
        return f.w[name][e] @ h + (f.w[name + ".b"][e] if bias else 0)

    def relu(h, e):
        return linear("a2", np.maximum(linear("a1", h, e), 0), e)

    def chunks(h, e):
        both = linear("b1", h, e, False)
        return linear("b2", swiglu(both[:INNER], both[INNER:]), e, False)

    def third(h, e):
        gate = linear("c1", h, e)
        return linear("c2", gate * sigmoid(gate) * linear("c3", h, e), e)

    def tanh_form(h, e):
        return linear("d2", gelu_tanh(linear("d1", h, e)), e, False)

    def plain(h, e):
        return linear("e2", linear("e1", h, e, False), e)

    layers = []
    for name, op, expert, k, normalize, attributes, operands in (
            ("a", "MoE", relu, 2, 0, {"activation_type": "relu"},
             [floats("a1", INNER, DIM), bias("a1.b", INNER), floats("a2", DIM, INNER), bias("a2.b", DIM)]),
            ("b", "MoE", chunks, 1, 1, {"activation_type": "swiglu", "swiglu_fusion": 2},
             [floats("b1", 2 * INNER, DIM), "", floats("b2", DIM, INNER)]),
            ("c", "QMoE", third, 3, 1, {"activation_type": "silu", "expert_weight_bits": 8, "block_size": 16},
             [*(one := packed(f, "c1", INNER, DIM, 8, 16, True))[:2], bias("c1.b", INNER),
              *(two := packed(f, "c2", DIM, INNER, 8, 16, True))[:2], bias("c2.b", DIM),
              *(three := packed(f, "c3", INNER, DIM, 8, 16, True))[:2], bias("c3.b", INNER), one[2], two[2], three[2]]),
            ("d", "QMoE", tanh_form, 2, 0, {"activation_type": "gelu", "expert_weight_bits": 4},
             [*(one := packed(f, "d1", INNER, DIM, 4, 0, True))[:2], bias("d1.b", INNER),
              *(two := packed(f, "d2", DIM, INNER, 4, 0, True))[:2], "", "", "", "", one[2], two[2]]),
            ("e", "QMoE", plain, 2, 1, {"activation_type": "identity", "expert_weight_bits": 2, "block_size": 32},
             [*(one := packed(f, "e1", INNER, DIM, 2, 32, True))[:2], "",
              *(two := packed(f, "e2", DIM, INNER, 2, 32, True))[:2], bias("e2.b", DIM), "", "", "", one[2], two[2], "",
              given])):
        scores = m.node("MatMul", [x, f.weight(name + "r", DIM, EXPERTS)], name + "/router")
        y = m.node(op, [x, scores, *operands], name, domain=MS, k=k, normalize_routing_weights=normalize, **attributes)
        x = m.node("Add", [x, y], name + "/Add", ["y"] if name == "e" else None)
        layers.append((name, expert, k, bool(normalize) or op == "QMoE"))  # onnxruntime's QMoE normalizes always
    m.save()

    def compute(feed):
        x = feed["x"].astype("f8")
        for name, expert, k, normalize in layers:
            x = x + routed(x, x @ f.w[name + "r"], k, normalize, expert, feed["weights"] if name == "e" else None)
        return {"y": x}

    def runs(out, rng):
        for rows in (7, 1, 40):
            out({"x": rng.standard_normal((rows, DIM)).astype("f4"),
                 "weights": rng.uniform(0.1, 1, (rows, EXPERTS)).astype("f4")})

    return compute, runs


# ---- layers with weights in blocks that share their input ----------------

def webgpu_llama(path):
    """A decoder of MatMulNBitsQkv and MatMulNBitsMlp, with norms and sums before them inside, or outside."""
    f = Decoder(path, HEADS)
    m, x, skip = f.m, f.x, ""

    def blocks(name, rows, columns, bias=True):
        codes = f.rng.integers(0, 16, (columns, rows // 32, 32)).astype("u1")
        scales = (0.15 / math.sqrt(rows) * f.rng.uniform(1, 2, codes.shape[:2])).astype("f4")
        f.w[name] = ((codes - 8.0) * scales[..., None]).reshape(columns, rows).T
        return [m.constant(name + "_quant", codes[..., ::2] | codes[..., 1::2] << 4, UINT8),
                m.constant(name + "_scales", scales, FLOAT), f.vector(name + ".b", columns) if bias else ""]

    sizes = {"K": DIM, "bits": 4, "block_size": 32, "accuracy_level": 0, "epsilon": 1e-6}
    for i in range(LAYERS):
        p = f"/model/layers.{i}/"
        m.node("MatMulNBitsQkv", [x, skip, f.vector(p + "norm_1", DIM, 1.0), *blocks(p + "q", DIM, DIM),
                                  *blocks(p + "k", DIM, DIM, False), *blocks(p + "v", DIM, DIM)], p + "Qkv",
               [p + "q", p + "k", p + "v", *([p + "x1"] if skip else [])], MS, Nq=DIM, Nkv=DIM, **sizes)
        x = p + "x1" if skip else x
        y = f.attention(p + "q", p + "k", p + "v", i)
        operands = [*blocks(p + "gate", DIM, 2 * DIM, False), *blocks(p + "up", DIM, 2 * DIM)]
        if i == 0:
            h = m.node("MatMulNBitsMlp", [x, y, f.vector(p + "norm_2", DIM, 1.0), *operands], p + "Mlp", [p + "h", p + "x2"],
                       MS, N=2 * DIM, activation="silu", **sizes)
            x = p + "x2"
        else:
            x = m.node("Add", [x, y], p + "Add")
            h = m.node("SimplifiedLayerNormalization", [x, f.vector(p + "norm_2", DIM, 1.0)], p + "LayerNorm", axis=-1,
                       epsilon=1e-6)
            h = m.node("MatMulNBitsMlp", [h, "", "", *operands], p + "Mlp", None, MS, N=2 * DIM, activation="silu", **sizes)
        skip = f.nbits(h, p + "down", 2 * DIM, DIM)
    f.end(x, skip)

    def linear(h, name):
        return h @ f.w[name] + f.w.get(name + ".b", 0)

    return f.computed(linear, lambda h, p: swiglu(linear(h, p + "gate"), linear(h, p + "up")) @ f.w[p + "down"])


# ---- codes of 8 bits -----------------------------------------------------

def dynamic_lstm(path):
    """DynamicQuantizeLSTM, both ways, with a scale for each column; then one way, with one for all."""
    f, hidden = Form(path), 24
    m = f.m
    x = m.input("x", FLOAT, ["T", "B", DIM])
    ends = m.input("ends", INT32, ["B"])
    for name in ("y", "h", "c"):
        m.output(name, FLOAT, ["T", 1, "B", hidden] if name == "y" else [1, "B", hidden])

    def codes(name, ways, rows, each):
        w = f.rng.integers(-100, 100, (ways, rows, 4 * hidden)).astype("i1")
        zero = f.rng.integers(-3, 4, (ways, 4 * hidden) if each else ways).astype("i1")
        scale = (f.rng.uniform(1, 2, zero.shape) / 100 / math.sqrt(rows)).astype("f4")
        spread = (lambda a: a[:, None]) if each else (lambda a: a[:, None, None])
        f.w[name] = w - spread(zero.astype("f8")), np.broadcast_to(spread(scale), (ways, 1, 4 * hidden)).astype("f8")
        return (m.constant(name, w, INT8), m.constant(name + "_scale", scale, FLOAT), m.constant(name + "_zero", zero, INT8))

    def layer(x, name, ways, inputs, each, outputs, direction):
        w, r = codes(name + "w", ways, inputs, each), codes(name + "r", ways, hidden, each)
        b = f.weight(name + "b", ways, 8 * hidden, scale=0.1)
        return m.node("DynamicQuantizeLSTM", [x, w[0], r[0], b, ends, "", "", "", *w[1:], *r[1:]], name, outputs, MS,
                      hidden_size=hidden, direction=direction)

    both = layer(x, "one", 2, DIM, True, ["both"], "bidirectional")
    both = m.node("Transpose", [both], "turn", perm=[0, 2, 1, 3])
    both = m.node("Reshape", [both, m.ints(0, 0, 2 * hidden)], "join")
    layer(both, "two", 1, 2 * hidden, False, ["y", "h", "c"], "forward")
    m.save()

    def run(x, name, way, ends):
        (w, ws), (r, rs) = ((a[way], b[way]) for a, b in (f.w[name + "w"], f.w[name + "r"]))
        b = f.w[name + "b"][way]
        q, s = dynamic(x)
        xw = q @ w * (ws * s) + b[:4 * hidden] + b[4 * hidden:]
        h = c = np.zeros((x.shape[1], hidden))
        y = np.zeros((*x.shape[:2], hidden))
        for t in range(x.shape[0])[::-1 if way else 1]:
            q, s = dynamic(h) if h.any() else (h, 1)
            i, o, g, n = np.split(xw[t] + q @ r * (rs * s), 4, -1)
            cell = sigmoid(g) * c + sigmoid(i) * np.tanh(n)
            on = (t < ends)[:, None]
            y[t] = np.where(on, sigmoid(o) * np.tanh(cell), 0)
            h, c = np.where(on, y[t], h), np.where(on, cell, c)
        return y, h, c

    def compute(feed):
        both = np.concatenate([run(feed["x"], "one", way, feed["ends"])[0] for way in range(2)], -1)
        y, h, c = run(both, "two", 0, feed["ends"])
        return {"y": y[:, None], "h": h[None], "c": c[None]}

    def runs(out, rng):
        for steps, ends in ((6, [6]), (9, [9, 5, 7]), (1, [1])):
            out({"x": rng.standard_normal((steps, len(ends), DIM)).astype("f4"), "ends": np.array(ends, "i4")})

    return compute, runs


def quantized_embeddings(path):
    """QEmbedLayerNormalization: tables, gain and bias in bytes."""
    f = Form(path)
    m = f.m
    ids, kinds, mask = (m.input(n, INT32, [BATCH, NEW]) for n in ("input_ids", "segment_ids", "mask"))
    tables, scales, zeros = [], [], []
    for name, *dims in (("word", VOCAB, DIM), ("place", CONTEXT, DIM), ("kind", 2, DIM), ("gain", DIM), ("bias", DIM)):
        a, zero = f.rng.integers(0, 256, dims).astype("u1"), int(f.rng.integers(100, 150))
        f.w[name] = 0.01 * (a - float(zero))
        tables.append(m.constant(name, a, UINT8))
        scales.append(m.constant(name + "_scale", np.float32(0.01), FLOAT))
        zeros.append(m.constant(name + "_zero", np.uint8(zero), UINT8))
    m.output("y", FLOAT, [BATCH, NEW, DIM])
    m.output("lengths", INT32, [BATCH])
    m.node("QEmbedLayerNormalization", [ids, kinds, *tables, mask, *scales, *zeros], "embed", ["y", "lengths"], MS,
           epsilon=1e-5)
    m.save()

    def compute(feed):
        w, ids = f.w, feed["input_ids"]
        x = w["word"][ids] + w["place"][:ids.shape[1]] + w["kind"][feed["segment_ids"]]
        return {"y": standardized(x, 1e-5) * w["gain"] + w["bias"], "lengths": feed["mask"].sum(1)}

    def runs(out, rng):
        for batch, n in ((1, 5), (3, 9)):
            mask = np.ones((batch, n), "i4")
            mask[-1, n - 2:] = 0
            out({"input_ids": rng.integers(0, VOCAB, (batch, n)).astype("i4"),
                 "segment_ids": rng.integers(0, 2, (batch, n)).astype("i4"), "mask": mask})

    return compute, runs


if __name__ == "__main__":
    write_all([genai_moe, ort_moe, webgpu_llama, dynamic_lstm, quantized_embeddings])
