#!/usr/bin/python3
"""Small models in the forms that Optimum, onnxruntime's optimizer and onnxruntime-genai's model builder write, and
what they compute, in NumPy with 64 bits.

usage: tests/export/written_models.py FOLDER

Writes what torch_models.py writes, for graphs that torch.onnx does not make: operators of com.microsoft, 4-bit
weights, half floats, and decoders whose first and further steps are the branches of an If.
"""
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))

from onnx_wire import BOOL, FLOAT, FLOAT16, INT32, INT64, UINT8, Graph, Model  # noqa: E402

DIM, HEADS, VOCAB, CONTEXT, LAYERS = 64, 4, 96, 64, 2
SIZE = DIM // HEADS
MS = "com.microsoft"
BATCH, NEW, OLD, ALL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"


# ---- what is computed ----------------------------------------------------

def standardized(x, eps, center=True):
    x = x - x.mean(-1, keepdims=True) if center else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def gelu_tanh(x):
    return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def heads(x, n):
    return x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)


def attend(q, k, v, hidden, scale, cap=0):
    """q [B,H,S,D], k and v [B,G,T,D]; `hidden` says which scores do not count."""
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
    s = q @ k.transpose(0, 1, 3, 2) * scale
    s = cap * np.tanh(s / cap) if cap else s
    s = np.where(hidden, -np.inf, s)
    p = np.exp(s - s.max(-1, keepdims=True))
    y = p / p.sum(-1, keepdims=True) @ v
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def later(n, old):
    """[S,T]: keys behind a row."""
    return np.arange(old + n) > np.arange(old, old + n)[:, None]


def rotated(x, at, part):
    """The first `part` of each head's elements, halves by halves, at places [B,S]."""
    angle = at[:, None, :, None] * 10000.0 ** (-np.arange(part // 2) * 2 / part)
    a, b = x[..., :part // 2], x[..., part // 2:part]
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s, x[..., part:]], -1)


def dynamic(x):
    """DynamicQuantizeLinear: codes without their zero point, and the scale."""
    x = x.astype("f4")
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / np.float32(255))
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255) - zero, float(scale)


# ---- what a form has -----------------------------------------------------

class Form:
    """A model in `elem` being written, and its weights as 64-bit floats."""

    def __init__(self, path, elem=FLOAT, opset=17, seed=1):
        self.m = Model(path, False, (("", opset), (MS, 1)))
        self.elem, self.rng, self.w = elem, np.random.default_rng(seed), {}

    def weight(self, name, *dims, scale=None, mean=0.0):
        scale = 1 / math.sqrt(dims[0]) if scale is None else scale
        a = (mean + scale * self.rng.standard_normal(dims)).astype("f2" if self.elem == FLOAT16 else "f4")
        self.w[name] = a.astype("f8")
        return self.m.constant(name, a, self.elem)

    def vector(self, name, n, mean=0.0):
        return self.weight(name, n, scale=0.1, mean=mean)

    def nbits(self, x, name, rows, columns):
        """MatMulNBits: 4 bits with zero points in blocks of 32, two codes to a byte, the low one first."""
        codes = self.rng.integers(0, 16, (columns, rows // 32, 32)).astype("u1")
        zeros = self.rng.integers(6, 10, (columns, rows // 32)).astype("u1")
        scales = (0.15 / math.sqrt(rows) * self.rng.uniform(1, 2, zeros.shape)).astype("f4")
        self.w[name] = ((codes - 1.0 * zeros[..., None]) * scales[..., None]).reshape(columns, rows).T
        even = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2)))
        m = self.m
        return m.node("MatMulNBits", [x, m.constant(name + "_quant", codes[..., ::2] | codes[..., 1::2] << 4, UINT8),
                                      m.constant(name + "_scales", scales.ravel(), FLOAT),
                                      m.constant(name + "_zp", (even[:, ::2] | even[:, 1::2] << 4).ravel(), UINT8)],
                      name, domain=MS, K=rows, N=columns, bits=4, block_size=32, accuracy_level=0)

    def caches(self, groups, size=SIZE):
        """Inputs and outputs of all layers, by name."""
        m, past, present = self.m, [], []
        for i in range(LAYERS):
            for kv in ("key", "value"):
                past.append(m.input(f"past_key_values.{i}.{kv}", self.elem, [BATCH, groups, OLD, size]))
                present.append(m.output(f"present.{i}.{kv}", self.elem, [BATCH, groups, ALL, size]))
        return past, present

    def layer_norm(self, y, name, eps=1e-5):
        return standardized(y, eps) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def norm_weights(self, name):
        return [self.vector(name + ".weight", DIM, 1.0), self.vector(name + ".bias", DIM)]


def decoder_runs(out, rng, past, shape=(HEADS, SIZE), elem="f4", positions=True):
    """Prompts and steps of a decoder; a batch keeps its caches while its size stays."""
    before = None
    for batch, n in ((1, 9), (1, 3), (2, 7), (2, 1)):
        if before is None or before[0].shape[0] != batch:
            before = [np.zeros((batch, shape[0], 0, shape[1]), elem)] * len(past)
        old = before[0].shape[2]
        feed = {"input_ids": rng.integers(0, VOCAB, (batch, n)), "attention_mask": np.ones((batch, old + n), np.int64),
                **dict(zip(past, before))}
        if positions:
            feed["position_ids"] = np.tile(np.arange(old, old + n), (batch, 1))
        before = out(feed)[1:]


def text(compute, past, shape=(HEADS, SIZE), elem="f4"):
    """Tokens 1, 2, 3 and what a decoder thinks likeliest behind them."""
    ids = [1, 2, 3]
    for _ in range(8):
        feed = {x: np.zeros((1, shape[0], 0, shape[1]), elem) for x in past}
        feed.update(input_ids=np.array([ids]), attention_mask=np.ones((1, len(ids)), np.int64),
                    position_ids=np.arange(len(ids))[None])
        ids.append(int(compute(feed)["logits"][0, -1].argmax()))
    return ids


# ---- onnxruntime's optimizer ---------------------------------------------

def ort_bert(path):
    """EmbedLayerNormalization, Attention with a mask, SkipLayerNormalization, BiasGelu."""
    f = Form(path)
    m = f.m
    ids = [m.node("Cast", [m.input(x, INT64, [BATCH, NEW])], x + "_int32", to=INT32)
           for x in ("input_ids", "attention_mask", "token_type_ids")]
    m.output("last_hidden_state", FLOAT, [BATCH, NEW, DIM])
    x = m.node("EmbedLayerNormalization",
               [ids[0], ids[2], *(f.weight(n, size, DIM, scale=1) for n, size in
                                  (("word", VOCAB), ("place", CONTEXT), ("kind", 2))), *f.norm_weights("norm")],
               "EmbedLayerNormalization_0", ["embeddings", "mask_index"], MS, epsilon=1e-12)
    for i in range(LAYERS):
        p = f"layer.{i}."
        y = m.node("Attention", [x, f.weight(p + "qkv", DIM, 3 * DIM), f.vector(p + "qkv.bias", 3 * DIM), ids[1]],
                   f"Attention_{i}", domain=MS, num_heads=HEADS)
        y = m.node("MatMul", [y, f.weight(p + "dense", DIM, DIM)], p + "MatMul_1")
        x = m.node("SkipLayerNormalization", [y, x, *f.norm_weights(p + "norm_1"), f.vector(p + "dense.bias", DIM)],
                   p + "SkipLayerNorm_1", domain=MS, epsilon=1e-12)
        y = m.node("MatMul", [x, f.weight(p + "up", DIM, 4 * DIM)], p + "MatMul_2")
        y = m.node("BiasGelu", [y, f.vector(p + "up.bias", 4 * DIM)], p + "Gelu", domain=MS)
        y = m.node("MatMul", [y, f.weight(p + "down", 4 * DIM, DIM)], p + "MatMul_3")
        x = m.node("SkipLayerNormalization", [y, x, *f.norm_weights(p + "norm_2"), f.vector(p + "down.bias", DIM)],
                   p + "SkipLayerNorm_2", ["last_hidden_state"] if i == LAYERS - 1 else None, MS, epsilon=1e-12)
    m.save()

    def compute(feed):
        w, ids = f.w, feed["input_ids"]
        x = f.layer_norm(w["word"][ids] + w["place"][:ids.shape[1]] + w["kind"][feed["token_type_ids"]], "norm", 1e-12)
        hidden = feed["attention_mask"][:, None, None] == 0
        for i in range(LAYERS):
            p = f"layer.{i}."
            q, k, v = (heads(a, HEADS) for a in np.split(x @ w[p + "qkv"] + w[p + "qkv.bias"], 3, -1))
            y = attend(q, k, v, hidden, SIZE ** -0.5) @ w[p + "dense"] + w[p + "dense.bias"]
            x = f.layer_norm(x + y, p + "norm_1", 1e-12)
            y = gelu(x @ w[p + "up"] + w[p + "up.bias"]) @ w[p + "down"] + w[p + "down.bias"]
            x = f.layer_norm(x + y, p + "norm_2", 1e-12)
        return {"last_hidden_state": x}

    def runs(out, rng):
        for batch, n in ((1, 6), (3, 11)):
            mask = np.ones((batch, n), np.int64)
            mask[-1, n - 2:] = 0
            out({"input_ids": rng.integers(0, VOCAB, (batch, n)), "attention_mask": mask,
                 "token_type_ids": rng.integers(0, 2, (batch, n))})

    return compute, runs


def ort_gpt2(path):
    """Attention whose keys and values of the past are one tensor, [2,B,N,P,D]; FastGelu with its bias."""
    f = Form(path)
    m = f.m
    ids, at = (m.input(x, INT64, [BATCH, NEW]) for x in ("input_ids", "position_ids"))
    mask = m.node("Cast", [m.input("attention_mask", INT64, [BATCH, ALL])], "mask_int32", to=INT32)
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    past = [m.input(f"past_{i}", FLOAT, [2, BATCH, HEADS, OLD, SIZE]) for i in range(LAYERS)]
    for i in range(LAYERS):
        m.output(f"present_{i}", FLOAT, [2, BATCH, HEADS, ALL, SIZE])
    h = m.node("Gather", [f.weight("wte", VOCAB, DIM, scale=1), ids], "Gather_1", axis=0)
    skip = m.node("Gather", [f.weight("wpe", CONTEXT, DIM, scale=1), at], "Gather_2", axis=0)
    for i in range(LAYERS):
        p = f"h.{i}."
        y = m.node("SkipLayerNormalization", [skip, h, *f.norm_weights(p + "ln_1")], p + "Skip_1",
                   [p + "y1", "", "", p + "h1"], MS, epsilon=1e-5)
        y = m.node("Attention", [y, f.weight(p + "c_attn", DIM, 3 * DIM), f.vector(p + "c_attn.bias", 3 * DIM), mask,
                                 past[i]], p + "Attention", [p + "a", f"present_{i}"], MS, num_heads=HEADS,
                   unidirectional=1)
        y = m.node("MatMul", [y, f.weight(p + "c_proj", DIM, DIM)], p + "MatMul_1")
        y = m.node("SkipLayerNormalization", [y, p + "h1", *f.norm_weights(p + "ln_2"), f.vector(p + "c_proj.bias", DIM)],
                   p + "Skip_2", [p + "y2", "", "", p + "h2"], MS, epsilon=1e-5)
        y = m.node("MatMul", [y, f.weight(p + "c_fc", DIM, 4 * DIM)], p + "MatMul_2")
        y = m.node("FastGelu", [y, f.vector(p + "c_fc.bias", 4 * DIM)], p + "FastGelu", domain=MS)
        y = m.node("MatMul", [y, f.weight(p + "c_out", 4 * DIM, DIM)], p + "MatMul_3")
        skip = m.node("Add", [y, f.vector(p + "c_out.bias", DIM)], p + "Add")
        h = p + "h2"
    h = m.node("Add", [skip, h], "Add_last")
    h = m.node("LayerNormalization", [h, *f.norm_weights("ln_f")], "LayerNormalization", axis=-1, epsilon=1e-5)
    m.node("MatMul", [h, f.weight("lm_head", DIM, VOCAB)], "MatMul", ["logits"])
    m.save()

    def compute(feed):
        w, presents = f.w, {}
        x = w["wte"][feed["input_ids"]] + w["wpe"][feed["position_ids"]]
        old = feed["past_0"].shape[3]
        hidden = (feed["attention_mask"][:, None, None] == 0) | later(x.shape[1], old)
        for i in range(LAYERS):
            p = f"h.{i}."
            q, k, v = (heads(a, HEADS) for a in np.split(
                f.layer_norm(x, p + "ln_1") @ w[p + "c_attn"] + w[p + "c_attn.bias"], 3, -1))
            now = np.concatenate([feed[f"past_{i}"], np.stack([k, v])], 3)
            presents[f"present_{i}"] = now
            x = x + attend(q, now[0], now[1], hidden, SIZE ** -0.5) @ w[p + "c_proj"] + w[p + "c_proj.bias"]
            y = gelu_tanh(f.layer_norm(x, p + "ln_2") @ w[p + "c_fc"] + w[p + "c_fc.bias"])
            x = x + y @ w[p + "c_out"] + w[p + "c_out.bias"]
        return {"logits": f.layer_norm(x, "ln_f") @ w["lm_head"], **presents}

    def runs(out, rng):
        before = None
        for batch, n in ((1, 6), (2, 5), (2, 1), (2, 3)):
            if before is None or before[0].shape[1] != batch:
                before = [np.zeros((2, batch, HEADS, 0, SIZE), "f4")] * LAYERS
            old = before[0].shape[3]
            before = out({"input_ids": rng.integers(0, VOCAB, (batch, n)),
                          "position_ids": np.tile(np.arange(old, old + n), (batch, 1)),
                          "attention_mask": np.ones((batch, old + n), np.int64),
                          **{f"past_{i}": x for i, x in enumerate(before)}})[1:]

    return compute, runs


# ---- onnxruntime-genai's builder -----------------------------------------

def lengths(m):
    """seqlens_k and total_sequence_length, from the mask."""
    mask = m.input("attention_mask", INT64, [BATCH, ALL])
    n = "/model/attn_mask_reformat/"
    last = m.node("Sub", [m.node("ReduceSum", [mask, m.ints(1)], n + "ReduceSum", keepdims=1), m.ints(1)], n + "Sub")
    total = m.node("Gather", [m.node("Shape", [mask], n + "Shape"), m.int(1)], n + "Gather", axis=0)
    return [m.node("Cast", [last], n + "Cast", to=INT32), m.node("Cast", [total], n + "Cast_1", to=INT32)]


def tables(f, part):
    angles = np.outer(np.arange(CONTEXT), 10000.0 ** (-np.arange(part // 2) * 2 / part))
    return [f.m.constant(n, g(angles), f.elem) for n, g in (("cos_cache", np.cos), ("sin_cache", np.sin))]


def genai_phi(path):
    """int4: MatMulNBits, queries, keys and values of one matrix, rotation of half of each head, attention and layers
    behind each other in parallel."""
    f, count, groups, size, part = Form(path), 2, 1, DIM // 2, DIM // 4
    m, wide = f.m, DIM + 2 * groups * size
    ids = m.input("input_ids", INT64, [BATCH, NEW])
    seen = lengths(m)
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    past, present = f.caches(groups, size)
    cos_sin = tables(f, part)
    x = m.node("Gather", [f.weight("embed", VOCAB, DIM, scale=1), ids], "/model/embed_tokens/Gather", axis=0)
    skip = None
    for i in range(LAYERS):
        p = f"/model/layers.{i}/"
        if skip is None:
            h = m.node("LayerNormalization", [x, *f.norm_weights(p + "norm")], p + "LayerNorm", axis=-1, epsilon=1e-5,
                       stash_type=1)
        else:
            h, x = m.node("SkipLayerNormalization", [x, skip, *f.norm_weights(p + "norm")], p + "SkipLayerNorm",
                          [p + "h", "", "", p + "x"], MS, epsilon=1e-5), p + "x"
        y = m.node("Add", [f.nbits(h, p + "qkv_proj", DIM, wide), f.vector(p + "qkv.bias", wide)], p + "qkv/Add")
        y = m.node("GroupQueryAttention", [y, "", "", past[2 * i], past[2 * i + 1], *seen, *cos_sin], p + "GQA",
                   [p + "a", present[2 * i], present[2 * i + 1]], MS, num_heads=count, kv_num_heads=groups, do_rotary=1,
                   rotary_interleaved=0, local_window_size=-1)
        y = f.nbits(y, p + "o_proj", DIM, DIM)
        z = m.node("Add", [f.nbits(h, p + "fc1", DIM, 4 * DIM), f.vector(p + "fc1.bias", 4 * DIM)], p + "fc1/Add")
        z = f.nbits(m.node("FastGelu", [z], p + "FastGelu", domain=MS), p + "fc2", 4 * DIM, DIM)
        skip = m.node("Add", [y, z], p + "residual/Add")
    h = m.node("SkipLayerNormalization", [x, skip, *f.norm_weights("norm")], "/model/norm/SkipLayerNorm", None, MS,
               epsilon=1e-5)
    y = m.node("Add", [f.nbits(h, "lm_head", DIM, VOCAB), f.vector("lm_head.bias", VOCAB)], "/lm_head/Add", ["logits"])
    m.save()

    def compute(feed):
        w, presents = f.w, {}
        x = w["embed"][feed["input_ids"]]
        n, old = x.shape[1], feed[past[0]].shape[2]
        at = np.tile(np.arange(old, old + n), (x.shape[0], 1))
        for i in range(LAYERS):
            p = f"/model/layers.{i}/"
            h = f.layer_norm(x, p + "norm")
            q, k, v = np.split(h @ w[p + "qkv_proj"] + w[p + "qkv.bias"], [DIM, DIM + groups * size], -1)
            k = np.concatenate([feed[past[2 * i]], rotated(heads(k, groups), at, part)], 2)
            v = np.concatenate([feed[past[2 * i + 1]], heads(v, groups)], 2)
            presents[present[2 * i]], presents[present[2 * i + 1]] = k, v
            y = attend(rotated(heads(q, count), at, part), k, v, later(n, old), size ** -0.5) @ w[p + "o_proj"]
            x = x + y + gelu_tanh(h @ w[p + "fc1"] + w[p + "fc1.bias"]) @ w[p + "fc2"]
        return {"logits": f.layer_norm(x, "norm") @ w["lm_head"] + w["lm_head.bias"], **presents}

    return (compute, lambda out, rng: decoder_runs(out, rng, past, (groups, size), positions=False),
            text(compute, past, (groups, size)))


def genai_gemma(path):
    """Half floats, norms without means, RotaryEmbedding beside GroupQueryAttention with a window and capped scores, and
    capped logits."""
    f, groups, window, cap = Form(path, FLOAT16), 2, 6, 20.0
    m = f.m
    ids, at = (m.input(x, INT64, [BATCH, NEW]) for x in ("input_ids", "position_ids"))
    seen = lengths(m)
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    past, present = f.caches(groups)
    cos_sin = tables(f, SIZE)
    x = m.node("Gather", [f.weight("embed", VOCAB, DIM, scale=1), ids], "/model/embed_tokens/Gather", axis=0)
    h = m.node("SimplifiedLayerNormalization", [x, f.vector("/model/layers.0/norm_1", DIM, 1.0)], "/model/LayerNorm",
               axis=-1, epsilon=1e-6, stash_type=1)
    for i in range(LAYERS):
        p = f"/model/layers.{i}/"
        q, k, v = (m.node("MatMul", [h, f.weight(p + n, DIM, size)], p + n + "/MatMul")
                   for n, size in (("q_proj", DIM), ("k_proj", groups * SIZE), ("v_proj", groups * SIZE)))
        q, k = (m.node("RotaryEmbedding", [y, at, *cos_sin], p + n, domain=MS, interleaved=0)
                for y, n in ((q, "q_rotary"), (k, "k_rotary")))
        y = m.node("GroupQueryAttention", [q, k, v, past[2 * i], past[2 * i + 1], *seen], p + "GQA",
                   [p + "a", present[2 * i], present[2 * i + 1]], MS, num_heads=HEADS, kv_num_heads=groups,
                   scale=0.25, do_rotary=0, local_window_size=window, softcap=cap)
        y = m.node("MatMul", [y, f.weight(p + "o_proj", DIM, DIM)], p + "o_proj/MatMul")
        h, x = m.node("SkipSimplifiedLayerNormalization", [x, y, f.vector(p + "norm_2", DIM, 1.0)], p + "Skip_2",
                      [p + "h2", "", "", p + "x2"], MS, epsilon=1e-6), p + "x2"
        gate = m.node("FastGelu", [m.node("MatMul", [h, f.weight(p + "gate", DIM, 2 * DIM)], p + "gate/MatMul")],
                      p + "gate/FastGelu", domain=MS)
        up = m.node("MatMul", [h, f.weight(p + "up", DIM, 2 * DIM)], p + "up/MatMul")
        y = m.node("MatMul", [m.node("Mul", [gate, up], p + "Mul"), f.weight(p + "down", 2 * DIM, DIM)], p + "down/MatMul")
        last = i == LAYERS - 1
        norm = "norm" if last else f"/model/layers.{i + 1}/norm_1"
        h = m.node("SkipSimplifiedLayerNormalization", [x, y, f.vector(norm, DIM, 1.0)], p + "Skip_3",
                   [p + "h3"] if last else [p + "h3", "", "", p + "x3"], MS, epsilon=1e-6)
        x = p + "x3"
    y = m.node("MatMul", [h, f.weight("lm_head", DIM, VOCAB)], "/lm_head/MatMul")
    half = m.constant("cap", np.array([cap], "f2"), FLOAT16)
    y = m.node("Mul", [m.node("Tanh", [m.node("Div", [y, half], "/lm_head/Div")], "/lm_head/Tanh"), half], "/lm_head/Mul")
    m.node("Cast", [y], "/lm_head/Cast", ["logits"], to=FLOAT)
    m.save()

    def compute(feed):
        w, presents = f.w, {}
        x, at = w["embed"][feed["input_ids"]], feed["position_ids"]
        n, old = x.shape[1], feed[past[0]].shape[2]
        far = np.arange(old, old + n)[:, None] - np.arange(old + n) >= window
        for i in range(LAYERS):
            p = f"/model/layers.{i}/"
            h = standardized(x, 1e-6, False) * w[p + "norm_1"]
            q, k, v = (heads(h @ w[p + a], b) for a, b in (("q_proj", HEADS), ("k_proj", groups), ("v_proj", groups)))
            k = np.concatenate([feed[past[2 * i]], rotated(k, at, SIZE)], 2)
            v = np.concatenate([feed[past[2 * i + 1]], v], 2)
            presents[present[2 * i]], presents[present[2 * i + 1]] = k, v
            x = x + attend(rotated(q, at, SIZE), k, v, later(n, old) | far, 0.25, cap) @ w[p + "o_proj"]
            h = standardized(x, 1e-6, False) * w[p + "norm_2"]
            x = x + gelu_tanh(h @ w[p + "gate"]) * (h @ w[p + "up"]) @ w[p + "down"]
        y = standardized(x, 1e-6, False) * w["norm"] @ w["lm_head"]
        return {"logits": cap * np.tanh(y / cap), **presents}

    return (compute, lambda out, rng: decoder_runs(out, rng, past, (groups, SIZE), "f2"),
            text(compute, past, (groups, SIZE), "f2"))


def genai_whisper(path):
    """A decoder of MultiHeadAttention: of its own tokens with caches and a bias, and of an encoder's keys and values,
    which are inputs [B,N,T,D]."""
    f = Form(path)
    m = f.m
    ids = m.input("decoder_input_ids", INT32, [BATCH, NEW])
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    own, present, far = [], [], []
    for i in range(LAYERS):
        for kv in ("key", "value"):
            own.append(m.input(f"past_{kv}_self_{i}", FLOAT, [BATCH, HEADS, OLD, SIZE]))
            present.append(m.output(f"present_{kv}_self_{i}", FLOAT, [BATCH, HEADS, ALL, SIZE]))
            far.append(m.input(f"past_{kv}_cross_{i}", FLOAT, [BATCH, HEADS, "encoder_length", SIZE]))
    x = m.node("Gather", [f.weight("embed", VOCAB, DIM, scale=1), ids], "/embed/Gather", axis=0)
    old, new = (m.node("Gather", [m.node("Shape", [a], n + "Shape"), m.int(axis)], n + "Gather", axis=0)
                for a, axis, n in ((own[0], 2, "/past/"), (ids, 1, "/new/")))
    ends = m.node("Add", [old, new], "/total/Add")
    old, ends = (m.node("Unsqueeze", [a, m.ints(0)], n) for a, n in ((old, "/old/Unsqueeze"), (ends, "/end/Unsqueeze")))
    places = m.node("Slice", [f.weight("places", CONTEXT, DIM, scale=1), old, ends, m.ints(0)], "/places/Slice")
    x = m.node("Add", [x, places], "/places/Add")
    for i in range(LAYERS):
        p = f"/layers.{i}/"

        def linear(x, name, n_in, n_out, bias=True):
            y = m.node("MatMul", [x, f.weight(p + name, n_in, n_out)], p + name + "/MatMul")
            return m.node("Add", [y, f.vector(p + name + ".bias", n_out)], p + name + "/Add") if bias else y

        def norm(x, name):
            return m.node("LayerNormalization", [x, *f.norm_weights(p + name)], p + name + "/LN", axis=-1, epsilon=1e-5)

        h = norm(x, "norm_1")
        qkv = [linear(h, n, DIM, DIM, False) for n in ("q", "k", "v")]
        y = m.node("MultiHeadAttention", [*qkv, f.vector(p + "qkv.bias", 3 * DIM), "", "", own[2 * i], own[2 * i + 1]],
                   p + "self/MHA", [p + "self", present[2 * i], present[2 * i + 1]], MS, num_heads=HEADS,
                   unidirectional=1)
        x = m.node("Add", [x, linear(y, "o", DIM, DIM)], p + "Add_1")
        q = linear(norm(x, "norm_2"), "cross_q", DIM, DIM)
        y = m.node("MultiHeadAttention", [q, far[2 * i], far[2 * i + 1]], p + "cross/MHA", domain=MS, num_heads=HEADS)
        x = m.node("Add", [x, linear(y, "cross_o", DIM, DIM)], p + "Add_2")
        y = m.node("Gelu", [linear(norm(x, "norm_3"), "fc1", DIM, 4 * DIM)], p + "Gelu", domain=MS)
        x = m.node("Add", [x, linear(y, "fc2", 4 * DIM, DIM)], p + "Add_3")
    x = m.node("LayerNormalization", [x, *f.norm_weights("norm")], "/norm/LN", axis=-1, epsilon=1e-5)
    m.node("MatMul", [x, f.weight("head", DIM, VOCAB)], "/head/MatMul", ["logits"])
    m.save()

    def compute(feed):
        w, presents = f.w, {}
        n, old = feed["decoder_input_ids"].shape[1], feed[own[0]].shape[2]
        x = w["embed"][feed["decoder_input_ids"]] + w["places"][old:old + n]
        for i in range(LAYERS):
            p = f"/layers.{i}/"
            h = f.layer_norm(x, p + "norm_1")
            q, k, v = (heads(h @ w[p + a] + b, HEADS) for a, b in zip("qkv", np.split(w[p + "qkv.bias"], 3)))
            k, v = (np.concatenate([feed[own[2 * i + j]], a], 2) for j, a in enumerate((k, v)))
            presents[present[2 * i]], presents[present[2 * i + 1]] = k, v
            x = x + attend(q, k, v, later(n, old), SIZE ** -0.5) @ w[p + "o"] + w[p + "o.bias"]
            q = heads(f.layer_norm(x, p + "norm_2") @ w[p + "cross_q"] + w[p + "cross_q.bias"], HEADS)
            y = attend(q, feed[far[2 * i]], feed[far[2 * i + 1]], False, SIZE ** -0.5)
            x = x + y @ w[p + "cross_o"] + w[p + "cross_o.bias"]
            y = gelu(f.layer_norm(x, p + "norm_3") @ w[p + "fc1"] + w[p + "fc1.bias"])
            x = x + y @ w[p + "fc2"] + w[p + "fc2.bias"]
        return {"logits": f.layer_norm(x, "norm") @ w["head"], **presents}

    def runs(out, rng):
        for batch, n, length in ((1, 4, 9), (2, 3, 6)):
            cross = {x: rng.standard_normal((batch, HEADS, length, SIZE)).astype("f4") for x in far}
            before = [np.zeros((batch, HEADS, 0, SIZE), "f4")] * len(own)
            for new in (n, 1):
                before = out({"decoder_input_ids": rng.integers(0, VOCAB, (batch, new)).astype("i4"), **cross,
                              **dict(zip(own, before))})[1:]

    return compute, runs


# ---- Optimum -------------------------------------------------------------

class Branch(Graph):
    """A branch of the If that a merged decoder is: with caches of the tokens before, or without."""

    def __init__(self, cached):
        super().__init__()
        self.tag = "/with_past" if cached else "/first"

    def node(self, op, inputs, name, outputs=None, **attributes):
        return super().node(op, inputs, f"{self.tag}/{name}", outputs, **attributes)

    def length(self, x, axis, name):
        return self.node("Gather", [self.node("Shape", [x], name + "/Shape"), self.int(axis)], name + "/Gather", axis=0)

    def norm(self, x, name):
        return self.node("LayerNormalization", [x, name + ".weight", name + ".bias"], name, axis=-1, epsilon=1e-5)


def optimum_merged(path):
    """decoder_model_merged.onnx: one If, whose branches are the decoder that begins a text and the one that goes on
    with it. Weights stand outside of both."""
    f = Form(path)
    m = f.m
    for x, dims in (("input_ids", [BATCH, NEW]), ("attention_mask", [BATCH, ALL]), ("position_ids", [BATCH, NEW])):
        m.input(x, INT64, dims)
    past, present = f.caches(HEADS)
    m.input("use_cache_branch", BOOL, [1])
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    m.outputs.insert(0, m.outputs.pop())
    f.weight("embed", VOCAB, DIM, scale=1)
    f.weight("places", CONTEXT, DIM, scale=1)
    for i in range(LAYERS):
        for n, rows, columns in (("qkv", DIM, 3 * DIM), ("o", DIM, DIM), ("up", DIM, 4 * DIM), ("down", 4 * DIM, DIM)):
            f.weight(f"{i}.{n}", rows, columns)
        for n in ("norm_1", "norm_2"):
            f.norm_weights(f"{i}.{n}")
    f.norm_weights("norm")
    f.weight("head", DIM, VOCAB)

    def branch(cached):
        g = Branch(cached)
        tag, node, length, norm = g.tag, g.node, g.length, g.norm

        x = node("Gather", ["embed", "input_ids"], "embed", axis=0)
        x = node("Add", [x, node("Gather", ["places", "position_ids"], "places", axis=0)], "Add")
        batch, new = length("input_ids", 0, "batch"), length("input_ids", 1, "new")
        old = length(past[0], 2, "old") if cached else g.int(0)
        total = node("Add", [old, new], "total")
        rows = node("Unsqueeze", [node("Range", [old, total, g.int(1)], "rows"), g.ints(1)], "rows/Unsqueeze")
        keys = node("Range", [g.int(0), total, g.int(1)], "keys")
        seen = node("And", [node("Not", [node("Greater", [keys, rows], "Greater")], "Not"),
                            node("Unsqueeze", [node("Cast", ["attention_mask"], "mask", to=BOOL), g.ints(1, 2)],
                                 "mask/Unsqueeze")], "And")
        bias = node("Where", [seen, g.float(0), g.float(np.finfo(np.float32).min)], "Where")
        sizes = [node("Unsqueeze", [s, g.ints(0)], n) for s, n in ((batch, "batch/Unsqueeze"), (new, "new/Unsqueeze"))]
        split = node("Concat", [*sizes, g.ints(HEADS), g.ints(SIZE)], "split", axis=0)
        whole = node("Concat", [*sizes, g.ints(DIM)], "whole", axis=0)
        for i in range(LAYERS):
            p = f"layers.{i}/"
            parts = [f"{tag}/{p}{n}" for n in "qkv"]
            node("Split", [node("MatMul", [norm(x, f"{i}.norm_1"), f"{i}.qkv"], p + "qkv"), g.ints(DIM, DIM, DIM)],
                 p + "Split", parts, axis=2)
            q, k, v = (node("Transpose", [node("Reshape", [a, split], p + n + "/Reshape")], p + n + "/Transpose",
                            perm=[0, 2, 1, 3]) for a, n in zip(parts, "qkv"))
            for j, a in enumerate((k, v)):
                out = [present[2 * i + j] + tag]
                if cached:
                    node("Concat", [past[2 * i + j], a], p + f"Concat_{j}", out, axis=2)
                else:
                    node("Identity", [a], p + f"Identity_{j}", out)
            k = node("Transpose", [present[2 * i] + tag], p + "keys", perm=[0, 1, 3, 2])
            s = node("Div", [node("MatMul", [q, k], p + "scores"), g.float(math.sqrt(SIZE))], p + "Div")
            s = node("Softmax", [node("Add", [s, bias], p + "masked")], p + "Softmax", axis=-1)
            y = node("Transpose", [node("MatMul", [s, present[2 * i + 1] + tag], p + "values")], p + "merge",
                     perm=[0, 2, 1, 3])
            y = node("MatMul", [node("Reshape", [y, whole], p + "merge/Reshape"), f"{i}.o"], p + "o")
            x = node("Add", [x, y], p + "Add_1")
            y = node("Relu", [node("MatMul", [norm(x, f"{i}.norm_2"), f"{i}.up"], p + "up")], p + "Relu")
            x = node("Add", [x, node("MatMul", [y, f"{i}.down"], p + "down")], p + "Add_2")
        g.output(node("MatMul", [norm(x, "norm"), "head"], "head", ["logits" + tag]), FLOAT, [BATCH, NEW, VOCAB])
        for name in present:
            g.output(name + tag, FLOAT, [BATCH, HEADS, ALL, SIZE])
        return g

    m.node("If", ["use_cache_branch"], "optimum::if", ["logits", *present], then_branch=branch(True),
           else_branch=branch(False))
    m.save()

    def compute(feed):
        w, presents = f.w, {}
        x = w["embed"][feed["input_ids"]] + w["places"][feed["position_ids"]]
        n, old = x.shape[1], feed[past[0]].shape[2]
        hidden = (feed["attention_mask"][:, None, None] == 0) | later(n, old)
        for i in range(LAYERS):
            q, k, v = (heads(a, HEADS) for a in np.split(f.layer_norm(x, f"{i}.norm_1") @ w[f"{i}.qkv"], 3, -1))
            k, v = (np.concatenate([feed[past[2 * i + j]], a], 2) for j, a in enumerate((k, v)))
            presents[present[2 * i]], presents[present[2 * i + 1]] = k, v
            x = x + attend(q, k, v, hidden, SIZE ** -0.5) @ w[f"{i}.o"]
            x = x + np.maximum(f.layer_norm(x, f"{i}.norm_2") @ w[f"{i}.up"], 0) @ w[f"{i}.down"]
        return {"logits": f.layer_norm(x, "norm") @ w["head"], **presents}

    def runs(out, rng):
        def with_branch(feed):
            feed["use_cache_branch"] = np.array([feed[past[0]].shape[2] > 0])
            return out(feed)

        decoder_runs(with_branch, rng, past)

    return compute, runs, text(compute, past)


class Codes:
    """A matrix of bytes that multiplies x as MatMulInteger does what DynamicQuantizeLinear made of it."""

    __array_ufunc__ = None

    def __init__(self, numbers):
        self.numbers = numbers

    def __rmatmul__(self, x):
        codes, scale = dynamic(x)
        return codes @ self.numbers * scale


class ByteForm(Form):
    """Matrices are codes of a byte with one scale, as onnxruntime's dynamic quantization leaves them."""

    def weight(self, name, *dims, scale=None, mean=0.0):
        if scale is not None:
            return super().weight(name, *dims, scale=scale, mean=mean)
        codes, zero = self.rng.integers(0, 256, dims).astype("u1"), 126
        scale = np.float32(1.7 / 128 / math.sqrt(dims[0]))
        self.w[name] = Codes((codes - float(zero)) * float(scale))
        self.m.constant(name + "_scale", scale, FLOAT)
        self.m.constant(name + "_zero_point", np.uint8(zero), UINT8)
        return self.m.constant(name + "_quantized", codes, UINT8)


class ByteBranch(Branch):
    """A branch whose products with weights are MatMulInteger; what `outside` names has its codes outside already."""

    def __init__(self, cached, weights, outside):
        super().__init__(cached)
        self.weights, self.coded = weights, dict(outside)

    def node(self, op, inputs, name, outputs=None, **attributes):
        if op != "MatMul" or not isinstance(self.weights.get(inputs[1]), Codes):
            return super().node(op, inputs, name, outputs, **attributes)
        x, w = inputs
        if x not in self.coded:
            self.coded[x] = [f"{self.tag}/{x}/{p}" for p in ("codes", "scale", "zero_point")]
            super().node("DynamicQuantizeLinear", [x], x + "/QuantizeLinear", self.coded[x])
        codes, scale, zero = self.coded[x]
        y = super().node("MatMulInteger", [codes, w + "_quantized", zero, w + "_zero_point"], name + "_quant")
        y = super().node("Cast", [y], name + "/Cast", to=FLOAT)
        scale = super().node("Mul", [scale, w + "_scale"], name + "/scales")
        return super().node("Mul", [y, scale], name + "/Mul", outputs)


def optimum_whisper_int8(path):
    """The same, quantized: an If and a DynamicQuantizeLinear (of the encoder's output) are all there is outside."""
    return optimum_whisper(path, True)


def optimum_whisper(path, quantized=False):
    """decoder_model_merged.onnx of an encoder and a decoder: the first branch of the If has the caches of both, and gives
    empty tensors for those of the encoder, which stay; the other makes them of the encoder's output."""
    f = (ByteForm if quantized else Form)(path)
    m = f.m
    m.input("input_ids", INT64, [BATCH, NEW])
    m.input("encoder_hidden_states", FLOAT, [BATCH, "encoder_sequence_length", DIM])
    past, present = [], []
    m.output("logits", FLOAT, [BATCH, NEW, VOCAB])
    for i in range(LAYERS):
        for part, old, total in (("decoder", OLD, ALL), ("encoder", *["encoder_sequence_length_out"] * 2)):
            for kv in ("key", "value"):
                past.append(m.input(f"past_key_values.{i}.{part}.{kv}", FLOAT, [BATCH, HEADS, old, SIZE]))
                present.append(m.output(f"present.{i}.{part}.{kv}", FLOAT, [BATCH, HEADS, total, SIZE]))
    m.input("use_cache_branch", BOOL, [1])
    f.weight("embed", VOCAB, DIM, scale=1)
    f.weight("places", CONTEXT, DIM, scale=1)
    for i in range(LAYERS):
        for n, rows, columns in (*((n, DIM, DIM) for n in ("q", "k", "v", "o", "far_q", "far_k", "far_v", "far_o")),
                                 ("up", DIM, 4 * DIM), ("down", 4 * DIM, DIM)):
            f.weight(f"{i}.{n}", rows, columns)
        for n in ("norm_1", "norm_2", "norm_3"):
            f.norm_weights(f"{i}.{n}")
    f.norm_weights("norm")
    f.weight("head", DIM, VOCAB)

    sound = {"encoder_hidden_states": [f"encoder_hidden_states_{p}" for p in ("quantized", "scale", "zero_point")]}
    if quantized:
        m.node("DynamicQuantizeLinear", list(sound), "encoder_hidden_states_QuantizeLinear", *sound.values())

    def branch(cached):
        g = ByteBranch(cached, f.w, sound) if quantized else Branch(cached)
        tag, node, length, norm = g.tag, g.node, g.length, g.norm

        def split(x, name, outputs=None):
            x = node("Reshape", [x, g.ints(0, 0, HEADS, SIZE)], name + "/Reshape")
            return node("Transpose", [x], name + "/Transpose", outputs, perm=[0, 2, 1, 3])

        def attended(q, k, v, bias, name):
            k = node("Transpose", [k], name + "/keys", perm=[0, 1, 3, 2])
            s = node("Div", [node("MatMul", [q, k], name + "/scores"), g.float(math.sqrt(SIZE))], name + "/Div")
            s = node("Add", [s, bias], name + "/masked") if bias else s
            y = node("MatMul", [node("Softmax", [s], name + "/Softmax", axis=-1), v], name + "/values")
            return node("Reshape", [node("Transpose", [y], name + "/merge", perm=[0, 2, 1, 3]), g.ints(0, 0, DIM)],
                        name + "/whole")

        new = length("input_ids", 1, "new")
        old = length(past[0], 2, "old") if cached else g.int(0)
        total = node("Add", [old, new], "total")
        at = node("Range", [old, total, g.int(1)], "at")
        x = node("Add", [node("Gather", ["embed", "input_ids"], "embed", axis=0),
                         node("Gather", ["places", at], "places", axis=0)], "Add")
        later = node("Greater", [node("Range", [g.int(0), total, g.int(1)], "keys"),
                                 node("Unsqueeze", [at, g.ints(1)], "rows")], "Greater")
        bias = node("Where", [later, g.float(np.finfo(np.float32).min), g.float(0)], "Where")
        for i in range(LAYERS):
            p, out = f"layers.{i}", [name + tag for name in present[4 * i:4 * i + 4]]
            y = norm(x, f"{i}.norm_1")
            q, *kv = (split(node("MatMul", [y, f"{i}.{n}"], f"{p}/{n}"), f"{p}/{n}",
                            [out["kv".index(n)]] if n != "q" and not cached else None) for n in "qkv")
            for j in range(2 if cached else 0):
                kv[j] = node("Concat", [past[4 * i + j], kv[j]], f"{p}/Concat_{j}", [out[j]], axis=2)
            x = node("Add", [x, node("MatMul", [attended(q, *kv, bias, p + "/self"), f"{i}.o"], p + "/o")], p + "/Add_1")
            q = split(node("MatMul", [norm(x, f"{i}.norm_2"), f"{i}.far_q"], p + "/far_q"), p + "/far_q")
            far = []
            for j, n in enumerate(("far_k", "far_v")):
                if cached:
                    far.append(past[4 * i + 2 + j])
                    node("Constant", [], f"{p}/Constant_{j}", [out[2 + j]],
                         value=np.zeros((0, HEADS, 1, SIZE), "f4"))
                else:
                    y = node("MatMul", ["encoder_hidden_states", f"{i}.{n}"], f"{p}/{n}")
                    far.append(split(y, f"{p}/{n}", [out[2 + j]]))
            x = node("Add", [x, node("MatMul", [attended(q, *far, None, p + "/far"), f"{i}.far_o"], p + "/far_o")],
                     p + "/Add_2")
            y = node("Relu", [node("MatMul", [norm(x, f"{i}.norm_3"), f"{i}.up"], p + "/up")], p + "/Relu")
            x = node("Add", [x, node("MatMul", [y, f"{i}.down"], p + "/down")], p + "/Add_3")
        g.output(node("MatMul", [norm(x, "norm"), "head"], "head", ["logits" + tag]), FLOAT, [BATCH, NEW, VOCAB])
        for i, name in enumerate(present):
            g.output(name + tag, FLOAT, [BATCH, HEADS, "encoder_sequence_length_out" if i % 4 > 1 else ALL, SIZE])
        return g

    m.node("If", ["use_cache_branch"], "optimum::if", ["logits", *present], then_branch=branch(True),
           else_branch=branch(False))
    m.save()

    def compute(feed):
        w, presents, cached = f.w, {}, bool(feed["use_cache_branch"][0])
        n, old = feed["input_ids"].shape[1], feed[past[0]].shape[2] if cached else 0
        x = w["embed"][feed["input_ids"]] + w["places"][old:old + n]
        for i in range(LAYERS):
            h = f.layer_norm(x, f"{i}.norm_1")
            q, k, v = (heads(h @ w[f"{i}.{a}"], HEADS) for a in "qkv")
            if cached:
                k, v = (np.concatenate([feed[past[4 * i + j]], a], 2) for j, a in enumerate((k, v)))
            far = [feed[past[4 * i + 2 + j]] if cached else heads(feed["encoder_hidden_states"] @ w[f"{i}.{a}"], HEADS)
                   for j, a in enumerate(("far_k", "far_v"))]
            kept = [np.zeros((0, HEADS, 1, SIZE))] * 2 if cached else far
            presents.update(zip(present[4 * i:4 * i + 4], (k, v, *kept)))
            x = x + attend(q, k, v, later(n, old), SIZE ** -0.5) @ w[f"{i}.o"]
            q = heads(f.layer_norm(x, f"{i}.norm_2") @ w[f"{i}.far_q"], HEADS)
            x = x + attend(q, *far, False, SIZE ** -0.5) @ w[f"{i}.far_o"]
            x = x + np.maximum(f.layer_norm(x, f"{i}.norm_3") @ w[f"{i}.up"], 0) @ w[f"{i}.down"]
        return {"logits": f.layer_norm(x, "norm") @ w["head"], **presents}

    def runs(out, rng):
        for batch, n, sound in ((1, 4, 9), (2, 3, 6)):
            feed = {"encoder_hidden_states": rng.standard_normal((batch, sound, DIM)).astype("f4"),
                    **{x: np.zeros((batch, HEADS, 0, SIZE), "f4") for x in past}}
            for step, new in enumerate((n, 1, 2)):
                feed.update(input_ids=rng.integers(0, VOCAB, (batch, new)), use_cache_branch=np.array([step > 0]))
                for x, y in zip(past, out(feed)[1:]):
                    if "decoder" in x or step == 0:
                        feed[x] = y

    return compute, runs


FORMS = [ort_bert, ort_gpt2, genai_phi, genai_gemma, genai_whisper, optimum_merged, optimum_whisper, optimum_whisper_int8]


def write_all(forms):
    """Each model, what it was run on, and what that gives, into the folder."""
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for form in forms:
        count = 0
        compute, runs, *ids = form(f"{folder}/{form.__name__}.onnx")
        if ids:
            np.save(f"{folder}/{form.__name__}.text.npy", ids[0])

        def out(feed):
            nonlocal count
            found = compute(feed)
            np.savez(f"{folder}/{form.__name__}.{count}.in.npz", **feed)
            np.savez(f"{folder}/{form.__name__}.{count}.out.npz", **found)
            count += 1
            kept = next((x.dtype for name, x in feed.items() if "past" in name), "f4")
            return [x.astype(kept) for x in found.values()]

        runs(out, np.random.default_rng(9))


if __name__ == "__main__":
    write_all(FORMS)
