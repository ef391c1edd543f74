"""The graph of a Llama-like decoder in ONNX, in the two forms in which decoders are exported.

Used for models with random weights (make_model) and for trained ones (train_decoder).  The plain
form is that of Hugging Face Optimum: inputs input_ids, attention_mask, position_ids and
past_key_values.N.key and .value, outputs logits and present.N.key and .value, symbolic sizes.  The
other has com.microsoft's norms and GroupQueryAttention, as onnxruntime-genai writes; it rotates by
itself, so there is no position_ids.
"""
import math

import numpy as np

from onnx_wire import BOOL, FLOAT, INT32, INT64

MS = "com.microsoft"
EPS = 1e-5


class Decoder:
    """`shape` has dim, layers, heads, kv_heads, ffn, vocab, context and theta; `weight(name, dims,
    scale, mean)` adds a tensor to the model, by default normal numbers of that size."""

    def __init__(self, shape, model, gqa=False, weight=None):
        self.a, self.m, self.gqa = shape, model, gqa
        self.weight = weight or model.normal
        self.size = shape.dim // shape.heads
        self.residual = 1 / math.sqrt(2 * shape.layers)  # what each of 2 L branches may add

    def linear(self, x, name, rows, columns, scale=1.0, outputs=None):
        w = self.weight(f"{name}.weight", [rows, columns], scale / math.sqrt(rows))
        node = "/" + name.replace(".", "/").replace("/layers/", "/layers.") + "/MatMul"
        return self.m.node("MatMul", [x, w], node, outputs)

    def gain(self, name):
        return self.weight(name + ".weight", [self.a.dim], 0.05, 1.0)

    def rotary_tables(self):
        """cos and sin of position times frequency: [context, size / 2]."""
        half = self.size // 2
        angles = np.outer(np.arange(self.a.context), self.a.theta ** (-np.arange(half) / half))
        return [self.m.constant(name, f(angles), FLOAT)
                for name, f in (("cos_cache", np.cos), ("sin_cache", np.sin))]

    def mlp(self, x, i):
        p, n = f"model.layers.{i}.mlp.", f"/model/layers.{i}/mlp/"
        gate = self.linear(x, p + "gate_proj", self.a.dim, self.a.ffn)
        up = self.linear(x, p + "up_proj", self.a.dim, self.a.ffn)
        sig = self.m.node("Sigmoid", [gate], n + "act_fn/Sigmoid")
        act = self.m.node("Mul", [gate, sig], n + "act_fn/Mul")
        x = self.m.node("Mul", [act, up], n + "Mul")
        return self.linear(x, p + "down_proj", self.a.ffn, self.a.dim, self.residual)

    def inputs(self):
        """Everything in Optimum's order; the caches of layer i at 2 i and 2 i + 1."""
        m, a = self.m, self.a
        batch, new, old = "batch_size", "sequence_length", "past_sequence_length"
        both = old + " + " + new
        self.ids = m.input("input_ids", INT64, [batch, new])
        self.mask = m.input("attention_mask", INT64, [batch, both])
        self.positions = None if self.gqa else m.input("position_ids", INT64, [batch, new])
        m.output("logits", FLOAT, [batch, new, a.vocab])
        self.past, self.present = [], []
        for i in range(a.layers):
            for kv in ("key", "value"):
                self.past.append(m.input(f"past_key_values.{i}.{kv}", FLOAT,
                                         [batch, a.kv_heads, old, self.size]))
                self.present.append(m.output(f"present.{i}.{kv}", FLOAT,
                                             [batch, a.kv_heads, both, self.size]))
        embedding = self.weight("model.embed_tokens.weight", [a.vocab, a.dim], 1.0)
        return m.node("Gather", [embedding, self.ids], "/model/embed_tokens/Gather", axis=0)

    # ---- standard operators --------------------------------------------------

    def norm(self, x, name):
        m, n = self.m, "/" + name.replace(".", "/").replace("/layers/", "/layers.")
        square = m.node("Pow", [x, m.float(2)], n + "/Pow")
        mean = m.node("ReduceMean", [square], n + "/ReduceMean", axes=[-1], keepdims=1)
        root = m.node("Sqrt", [m.node("Add", [mean, m.float(EPS)], n + "/Add")], n + "/Sqrt")
        inverse = m.node("Div", [m.float(1), root], n + "/Div")
        return m.node("Mul", [self.gain(name), m.node("Mul", [x, inverse], n + "/Mul")],
                      n + "/Mul_1")

    def prepare(self):
        """What all layers share: lengths, the mask as a bias, the rotary factors."""
        m = self.m

        def length(of, axis, n):
            return m.node("Gather", [m.node("Shape", [of], f"/model/Shape{n}"), m.int(axis)],
                          f"/model/Gather{n}", axis=0)

        new, old = length(self.ids, 1, "_1"), length(self.past[0], 2, "_2")
        total = m.node("Add", [old, new], "/model/Add")
        queries = m.node("Range", [old, total, m.int(1)], "/model/Range")
        keys = m.node("Range", [m.int(0), total, m.int(1)], "/model/Range_1")
        column = m.node("Unsqueeze", [queries, m.ints(1)], "/model/Unsqueeze")
        causal = m.node("LessOrEqual", [keys, column], "/model/LessOrEqual")
        there = m.node("Cast", [self.mask], "/model/Cast", to=BOOL)
        there = m.node("Unsqueeze", [there, m.ints(1, 2)], "/model/Unsqueeze_1")
        keep = m.node("And", [causal, there], "/model/And")
        self.bias = m.node("Where", [keep, m.float(0), m.float(np.finfo(np.float32).min)],
                           "/model/Where")
        self.batch, self.new, self.total = (
            m.node("Unsqueeze", [x, m.ints(0)], f"/model/Unsqueeze_{i}")
            for i, x in enumerate((length(self.ids, 0, ""), new, total), 2))
        self.factors = []
        for table, f in zip(self.rotary_tables(), ("Cos", "Sin")):
            n = "/model/rotary_emb/" + f
            row = m.node("Gather", [table, self.positions], n + "/Gather", axis=0)
            row = m.node("Concat", [row, row], n + "/Concat", axis=-1)
            self.factors.append(m.node("Unsqueeze", [row, m.ints(1)], n + "/Unsqueeze"))

    def split(self, x, heads, n):
        m = self.m
        shape = m.node("Concat", [self.batch, self.new, m.ints(heads), m.ints(self.size)],
                       n + "/Concat", axis=0)
        x = m.node("Reshape", [x, shape], n + "/Reshape")
        return m.node("Transpose", [x], n + "/Transpose", perm=[0, 2, 1, 3])

    def rotate(self, x, n):
        m, half = self.m, self.size // 2
        low = m.node("Slice", [x, m.ints(0), m.ints(half), m.ints(3), m.ints(1)], n + "/Slice")
        high = m.node("Slice", [x, m.ints(half), m.ints(2 ** 63 - 1), m.ints(3), m.ints(1)],
                      n + "/Slice_1")
        turned = m.node("Concat", [m.node("Neg", [high], n + "/Neg"), low], n + "/Concat", axis=-1)
        return m.node("Add", [m.node("Mul", [x, self.factors[0]], n + "/Mul"),
                              m.node("Mul", [turned, self.factors[1]], n + "/Mul_1")], n + "/Add")

    def repeat(self, x, n):
        """Each key or value head once for every query head that reads it."""
        m, a = self.m, self.a
        if a.heads == a.kv_heads:
            return x
        wide = m.node("Concat", [self.batch, m.ints(a.kv_heads), m.ints(a.heads // a.kv_heads),
                                 self.total, m.ints(self.size)], n + "/Concat", axis=0)
        flat = m.node("Concat", [self.batch, m.ints(a.heads), self.total, m.ints(self.size)],
                      n + "/Concat_1", axis=0)
        x = m.node("Unsqueeze", [x, m.ints(2)], n + "/Unsqueeze")
        return m.node("Reshape", [m.node("Expand", [x, wide], n + "/Expand"), flat], n + "/Reshape")

    def attention(self, x, i):
        m, a = self.m, self.a
        p, n = f"model.layers.{i}.self_attn.", f"/model/layers.{i}/self_attn"
        wide, narrow = a.heads * self.size, a.kv_heads * self.size
        q = self.split(self.linear(x, p + "q_proj", a.dim, wide), a.heads, n + "/q")
        k = self.split(self.linear(x, p + "k_proj", a.dim, narrow), a.kv_heads, n + "/k")
        v = self.split(self.linear(x, p + "v_proj", a.dim, narrow), a.kv_heads, n + "/v")
        q, k = self.rotate(q, n + "/q_rotary"), self.rotate(k, n + "/k_rotary")
        for j, new in ((2 * i, k), (2 * i + 1, v)):
            m.node("Concat", [self.past[j], new], f"{n}/Concat_{j % 2}", [self.present[j]], axis=2)
        keys = m.node("Transpose", [self.repeat(self.present[2 * i], n + "/repeat_k")],
                      n + "/Transpose", perm=[0, 1, 3, 2])
        scores = m.node("Div", [m.node("MatMul", [q, keys], n + "/MatMul"),
                                m.float(math.sqrt(self.size))], n + "/Div")
        weights = m.node("Softmax", [m.node("Add", [scores, self.bias], n + "/Add")],
                         n + "/Softmax", axis=-1)
        out = m.node("MatMul", [weights, self.repeat(self.present[2 * i + 1], n + "/repeat_v")],
                     n + "/MatMul_1")
        shape = m.node("Concat", [self.batch, self.new, m.ints(wide)], n + "/Concat_2", axis=0)
        out = m.node("Transpose", [out], n + "/Transpose_1", perm=[0, 2, 1, 3])
        out = m.node("Reshape", [out, shape], n + "/Reshape")
        return self.linear(out, p + "o_proj", wide, a.dim, self.residual)

    def plain(self):
        m = self.m
        x = self.inputs()
        self.prepare()
        for i in range(self.a.layers):
            p, n = f"model.layers.{i}.", f"/model/layers.{i}"
            branch = self.attention(self.norm(x, p + "input_layernorm"), i)
            x = m.node("Add", [x, branch], n + "/Add")
            branch = self.mlp(self.norm(x, p + "post_attention_layernorm"), i)
            x = m.node("Add", [x, branch], n + "/Add_1")
        x = self.norm(x, "model.norm")
        self.linear(x, "lm_head", self.a.dim, self.a.vocab, 1.0, ["logits"])

    # ---- com.microsoft operators ---------------------------------------------

    def skip_norm(self, x, branch, name, last=False):
        """(norm(x + branch), x + branch)"""
        n = "/" + name.replace(".", "/").replace("/layers/", "/layers.") + "/SkipLayerNorm"
        outputs = [n + "_output_0"] + ([] if last else ["", "", n + "_output_3"])
        self.m.node("SkipSimplifiedLayerNormalization", [x, branch, self.gain(name)], n, outputs,
                    MS, epsilon=EPS)
        return outputs[0], outputs[-1]

    def fused(self):
        m, a = self.m, self.a
        wide, narrow = a.heads * self.size, a.kv_heads * self.size
        x = self.inputs()
        n = "/model/attn_mask_reformat"
        last = m.node("ReduceSum", [self.mask, m.ints(1)], n + "/ReduceSum", keepdims=1)
        last = m.node("Sub", [last, m.ints(1)], n + "/Sub")
        last = m.node("Cast", [last], n + "/Cast", to=INT32)
        total = m.node("Gather", [m.node("Shape", [self.mask], n + "/Shape"), m.int(1)],
                       n + "/Gather", axis=0)
        total = m.node("Cast", [total], n + "/Cast_1", to=INT32)
        tables = self.rotary_tables()
        branch = None
        for i in range(a.layers):
            p, n = f"model.layers.{i}.", f"/model/layers.{i}"
            if branch is None:
                h = m.node("SimplifiedLayerNormalization", [x, self.gain(p + "input_layernorm")],
                           n + "/input_layernorm/LayerNorm", axis=-1, epsilon=EPS, stash_type=1)
            else:
                h, x = self.skip_norm(x, branch, p + "input_layernorm")
            qkv = [self.linear(h, p + f"attn.{k}_proj", a.dim, size)
                   for k, size in (("q", wide), ("k", narrow), ("v", narrow))]
            node = n + "/attn/GroupQueryAttention"
            past, present = self.past[2 * i:2 * i + 2], self.present[2 * i:2 * i + 2]
            h = m.node("GroupQueryAttention", qkv + past + [last, total] + tables, node,
                       [node + "_output_0"] + present, MS, num_heads=a.heads,
                       kv_num_heads=a.kv_heads, scale=1 / math.sqrt(self.size),
                       local_window_size=-1, do_rotary=1, rotary_interleaved=0)
            h = self.linear(h, p + "attn.o_proj", wide, a.dim, self.residual)
            h, x = self.skip_norm(x, h, p + "post_attention_layernorm")
            branch = self.mlp(h, i)
        x, _ = self.skip_norm(x, branch, "model.norm", last=True)
        self.linear(x, "lm_head", a.dim, a.vocab, 1.0, ["logits"])

    def build(self):
        (self.fused if self.gqa else self.plain)()
