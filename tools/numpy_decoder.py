"""A Llama-like decoder in NumPy: forward, and the gradient of its loss written by hand.

Why by hand: tools/train_decoder then needs nothing but NumPy.  Norms are RMSNorm (Zhang and
Sennrich 2019), positions rotary (Su et al. 2021, halves rotated), the MLP SwiGLU (Shazeer 2020),
several query heads share a key head (Ainslie et al. 2023); no biases.  Weights are named, and laid
out, as onnx_decoder.py wants them: x @ W.
"""
import numpy as np

from onnx_decoder import EPS


def layout(a):
    """[(name, shape)] of all weights; matrices first, then the gains of norms."""
    narrow = a.kv_heads * (a.dim // a.heads)
    matrices, gains = [("model.embed_tokens", (a.vocab, a.dim))], []
    for i in range(a.layers):
        p = f"model.layers.{i}."
        matrices += [(p + "self_attn.q_proj", (a.dim, a.dim)),
                     (p + "self_attn.k_proj", (a.dim, narrow)),
                     (p + "self_attn.v_proj", (a.dim, narrow)),
                     (p + "self_attn.o_proj", (a.dim, a.dim)),
                     (p + "mlp.gate_proj", (a.dim, a.ffn)), (p + "mlp.up_proj", (a.dim, a.ffn)),
                     (p + "mlp.down_proj", (a.ffn, a.dim))]
        gains += [(p + "input_layernorm", (a.dim,)), (p + "post_attention_layernorm", (a.dim,))]
    matrices.append(("lm_head", (a.dim, a.vocab)))
    return [(n + ".weight", s) for n, s in matrices + gains + [("model.norm", (a.dim,))]]


def views(a, flat):
    """{name: its part of the vector of all weights, in shape}"""
    out, at = {}, 0
    for name, shape in layout(a):
        size = int(np.prod(shape))
        out[name] = flat[at:at + size].reshape(shape)
        at += size
    assert at == flat.size
    return out


def new_weights(a, seed, dtype=np.float32):
    """A vector of all weights: normal, matrices that end a branch smaller; gains are 1."""
    flat = np.ones(sum(int(np.prod(s)) for _, s in layout(a)), dtype)
    rng = np.random.default_rng(seed)
    for name, w in views(a, flat).items():
        if w.ndim == 2:
            deep = "o_proj" in name or "down_proj" in name
            w[:] = rng.standard_normal(w.shape) * 0.05 / (np.sqrt(2 * a.layers) if deep else 1)
    return flat


def norm(x, gain):
    inverse = 1 / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(EPS))
    return x * inverse * gain, (x, inverse)


def norm_back(dy, gain, saved, dgain):
    x, inverse = saved
    scaled = x * inverse
    dgain += np.sum(dy * scaled, 0)
    dy = dy * gain
    return inverse * (dy - scaled * np.mean(dy * scaled, -1, keepdims=True))


def swap(x):
    """(-b, a) for x = (a, b)"""
    a, b = np.split(x, 2, -1)
    return np.concatenate((-b, a), -1)


class Decoder:
    def __init__(self, shape, flat):
        self.a, self.size = shape, shape.dim // shape.heads
        self.w = views(shape, flat)
        half = self.size // 2
        angle = np.outer(np.arange(shape.context), shape.theta ** (-np.arange(half) / half))
        angle = np.concatenate((angle, angle), -1)
        self.cos, self.sin = np.cos(angle).astype(flat.dtype), np.sin(angle).astype(flat.dtype)

    # Heads that share a key head lie below each other: [windows, key heads, shared x tokens, size].
    def split(self, x, windows, heads):
        return x.reshape(windows, -1, heads, self.size).transpose(0, 2, 1, 3)

    def share(self, x):
        return x.reshape(x.shape[0], self.a.kv_heads, -1, self.size)

    def join(self, x, windows, heads):
        x = x.reshape(windows, heads, -1, self.size).transpose(0, 2, 1, 3)
        return x.reshape(-1, heads * self.size)

    def rotate(self, x, sign=1):
        tokens = x.shape[2]
        return x * self.cos[:tokens] + sign * swap(x) * self.sin[:tokens]

    def attention(self, x, p, windows):
        a, w = self.a, self.w
        q = self.rotate(self.split(x @ w[p + "q_proj.weight"], windows, a.heads))
        k = self.rotate(self.split(x @ w[p + "k_proj.weight"], windows, a.kv_heads))
        v = self.split(x @ w[p + "v_proj.weight"], windows, a.kv_heads)
        tokens, q = q.shape[2], self.share(q) / x.dtype.type(np.sqrt(self.size))
        probs = q @ k.swapaxes(2, 3)
        future = np.triu(np.full((tokens, tokens), -np.inf, x.dtype), 1)
        probs += np.tile(future, (a.heads // a.kv_heads, 1))
        probs -= probs.max(-1, keepdims=True)
        np.exp(probs, out=probs)
        probs /= probs.sum(-1, keepdims=True)
        out = self.join(probs @ v, windows, a.heads)
        return out @ w[p + "o_proj.weight"], (x, q, k, v, probs, out)

    def attention_back(self, dy, p, windows, saved, g):
        a, w = self.a, self.w
        x, q, k, v, probs, out = saved
        g[p + "o_proj.weight"] += out.T @ dy
        dout = self.share(self.split(dy @ w[p + "o_proj.weight"].T, windows, a.heads))
        dscores = dout @ v.swapaxes(2, 3)
        dscores -= np.sum(dscores * probs, -1, keepdims=True)
        dscores *= probs
        dq = (dscores @ k / x.dtype.type(np.sqrt(self.size))).reshape(windows, a.heads, -1, self.size)
        dx = 0
        for name, d, heads in (("q_proj", self.rotate(dq, -1), a.heads),
                               ("k_proj", self.rotate(dscores.swapaxes(2, 3) @ q, -1), a.kv_heads),
                               ("v_proj", probs.swapaxes(2, 3) @ dout, a.kv_heads)):
            d = self.join(d, windows, heads)
            g[p + name + ".weight"] += x.T @ d
            dx = dx + d @ w[p + name + ".weight"].T
        return dx

    def mlp(self, x, p):
        w = self.w
        gate, up = x @ w[p + "gate_proj.weight"], x @ w[p + "up_proj.weight"]
        sigmoid = 1 / (1 + np.exp(-gate))
        silu = gate * sigmoid
        act = silu * up
        return act @ w[p + "down_proj.weight"], (x, up, sigmoid, silu, act)

    def mlp_back(self, dy, p, saved, g):
        w = self.w
        x, up, sigmoid, silu, act = saved
        g[p + "down_proj.weight"] += act.T @ dy
        dact = dy @ w[p + "down_proj.weight"].T
        dup = dact * silu
        dgate = dact * up * (sigmoid + silu * (1 - sigmoid))
        g[p + "gate_proj.weight"] += x.T @ dgate
        g[p + "up_proj.weight"] += x.T @ dup
        return dgate @ w[p + "gate_proj.weight"].T + dup @ w[p + "up_proj.weight"].T

    def forward(self, ids, saved=None):
        """Logits [windows, tokens, vocabulary] of ids [windows, tokens]; what the gradient needs is
        appended to the list `saved`."""
        w, windows = self.w, len(ids)
        saved = [] if saved is None else saved
        x = w["model.embed_tokens.weight"][ids.ravel()]
        for i in range(self.a.layers):
            p = f"model.layers.{i}."
            h, first = norm(x, w[p + "input_layernorm.weight"])
            h, attention = self.attention(h, p + "self_attn.", windows)
            x = x + h
            h, second = norm(x, w[p + "post_attention_layernorm.weight"])
            h, mlp = self.mlp(h, p + "mlp.")
            x = x + h
            saved.append((first, attention, second, mlp))
        h, last = norm(x, w["model.norm.weight"])
        saved.append((h, last))
        return (h @ w["lm_head.weight"]).reshape(*ids.shape, -1)

    def gradient(self, rows, g, total):
        """Adds the gradient of the summed loss of predicting rows[:, 1:], divided by `total`, to
        the weights' parts g (see `views`); returns that loss."""
        w, saved, ids = self.w, [], rows[:, :-1]
        probs = self.forward(ids, saved)
        loss, probs = cross_entropy(probs.reshape(-1, self.a.vocab), rows[:, 1:].ravel())
        probs[np.arange(len(probs)), rows[:, 1:].ravel()] -= 1
        probs /= probs.dtype.type(total)
        h, last = saved.pop()
        g["lm_head.weight"] += h.T @ probs
        dx = norm_back(probs @ w["lm_head.weight"].T, w["model.norm.weight"], last,
                       g["model.norm.weight"])
        for i in reversed(range(self.a.layers)):
            p = f"model.layers.{i}."
            first, attention, second, mlp = saved.pop()
            dh = self.mlp_back(dx, p + "mlp.", mlp, g)
            dx = dx + norm_back(dh, w[p + "post_attention_layernorm.weight"], second,
                                g[p + "post_attention_layernorm.weight"])
            dh = self.attention_back(dx, p + "self_attn.", len(ids), attention, g)
            dx = dx + norm_back(dh, w[p + "input_layernorm.weight"], first,
                                g[p + "input_layernorm.weight"])
        hot = (np.arange(self.a.vocab)[:, None] == ids.ravel()).astype(dx.dtype)
        g["model.embed_tokens.weight"] += hot @ dx
        return loss / total


def cross_entropy(logits, targets):
    """(summed loss in nats, probabilities) for logits [predictions, vocabulary]"""
    logits = logits - logits.max(-1, keepdims=True)
    probs = np.exp(logits)
    sums = probs.sum(-1)
    picked = logits[np.arange(len(targets)), targets]
    return float(np.sum(np.log(sums) - picked, dtype=np.float64)), probs / sums[:, None]
