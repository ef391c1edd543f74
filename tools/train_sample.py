#!/usr/bin/python3
"""Train and export the sample model: a small Llama-style decoder over raw bytes.

Why: the project needs a language model that is small enough to keep in the
repository, really trained (so that the loss caused by quantization can be
measured on text it never saw), and exported the way common tools export
decoders (a cache input and output per layer, symbolic sizes, a mask built from
shapes).  The text is the King James Bible, which is in the public domain.

Debian packages: python3-torch, python3-numpy, python3-onnx, bible-kjv,
bible-kjv-text.  Usage, from the top of the repository:

    python3 tools/train_sample.py train    # checkpoint and log in --work
    python3 tools/train_sample.py export   # writes the files in --out
    python3 tools/train_sample.py check    # NumPy forward against the module
"""
import argparse
import math
import os
import re
import shutil
import subprocess
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB, DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 256, 128, 384, 6, 4, 2, 32
CONTEXT, THETA, EPS, SEED = 512, 10000.0, 1e-5, 1
HELD_OUT_BOOK = "Est"                 # the book of Esther is never trained on
WINDOW, EVAL_TOKENS, CALIB_TOKENS = 256, 10240, 8192


# ---- text ----------------------------------------------------------------

def load_text():
    """Return (training, held-out) byte arrays: a verse a line, a blank line
    after each chapter, without verse numbers."""
    raw = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], check=True,
                         stdout=subprocess.PIPE).stdout.decode("ascii")
    parts = {False: [], True: []}
    for line in raw.splitlines():
        book, verse, text = re.match(r"(\d?[A-Za-z]+)\d+:(\d+) (.*)", line).groups()
        held = book == HELD_OUT_BOOK
        if verse == "1" and parts[held]:
            parts[held].append("")
        parts[held].append(text.strip())
    return [np.frombuffer(("\n".join(parts[h]) + "\n").encode("ascii"), np.uint8)
            for h in (False, True)]


# ---- model ---------------------------------------------------------------

class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + EPS))


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


def repeat_kv(x, times):
    batch, heads, length, width = x.shape
    x = x[:, :, None, :, :].expand(batch, heads, times, length, width)
    return x.reshape(batch, heads * times, length, width)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(DIM, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, DIM, bias=False)
        inv_freq = 1.0 / THETA ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angle = torch.outer(torch.arange(CONTEXT).float(), inv_freq)
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos_cached", angle.cos(), persistent=False)
        self.register_buffer("sin_cached", angle.sin(), persistent=False)

    def forward(self, x, bias, position_ids, past):
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, HEADS, HEAD_DIM).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        cos = self.cos_cached[position_ids].unsqueeze(1)
        sin = self.sin_cached[position_ids].unsqueeze(1)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        if past is not None:
            k = torch.cat((past[0], k), dim=2)
            v = torch.cat((past[1], v), dim=2)
        keys = repeat_kv(k, HEADS // KV_HEADS)
        values = repeat_kv(v, HEADS // KV_HEADS)
        scores = torch.matmul(q, keys.transpose(2, 3)) / math.sqrt(HEAD_DIM) + bias
        probs = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        out = torch.matmul(probs, values).transpose(1, 2).contiguous()
        return self.o_proj(out.reshape(batch, length, HEADS * HEAD_DIM)), (k, v)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(DIM, HIDDEN, bias=False)
        self.up_proj = nn.Linear(DIM, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, DIM, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(), RMSNorm()

    def forward(self, x, bias, position_ids, past):
        attn, present = self.self_attn(self.input_layernorm(x), bias, position_ids, past)
        x = x + attn
        return x + self.mlp(self.post_attention_layernorm(x)), present


def causal_bias(attention_mask, length):
    """0 where a query may look, the lowest finite float where it may not."""
    total = attention_mask.shape[1]
    key = torch.arange(total)
    query = torch.arange(length) + (total - length)
    visible = (key[None, :] <= query[:, None])[None, None]
    visible = visible & attention_mask[:, None, None, :].to(torch.bool)
    zero = torch.zeros(visible.shape, dtype=torch.float32)
    return zero.masked_fill(~visible, torch.finfo(torch.float32).min)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = RMSNorm()
        self.lm_head = nn.Linear(DIM, VOCAB, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=0.05 / (math.sqrt(2 * LAYERS) if deep else 1))

    def forward(self, input_ids, attention_mask, position_ids, *past):
        bias = causal_bias(attention_mask, input_ids.shape[1])
        x, presents = self.embed_tokens(input_ids), []
        for i, layer in enumerate(self.layers):
            cache = (past[2 * i], past[2 * i + 1]) if past else None
            x, present = layer(x, bias, position_ids, cache)
            presents += present
        return (self.lm_head(self.norm(x)), *presents)

    def logits(self, ids):
        return self(ids, torch.ones_like(ids), torch.arange(ids.shape[1])[None])[0]


# ---- training ------------------------------------------------------------

@torch.no_grad()
def held_out_loss(model, held):
    rows = torch.from_numpy(held[:EVAL_TOKENS].astype(np.int64)).view(-1, WINDOW)
    losses = [F.cross_entropy(model.logits(r)[:, :-1].reshape(-1, VOCAB), r[:, 1:].flatten())
              for r in rows.split(8)]
    return torch.stack(losses).mean().item()


@torch.no_grad()
def sample(model, prompt, count, temperature=0.8, seed=SEED):
    gen = torch.Generator().manual_seed(seed)
    ids = torch.tensor([list(prompt.encode())])
    seen, past = list(ids[0].tolist()), []
    for _ in range(count):
        total = len(seen)
        where = torch.arange(total - ids.shape[1], total)[None]
        logits, *past = model(ids, torch.ones(1, total, dtype=torch.long), where, *past)
        probs = F.softmax(logits[0, -1] / temperature, dim=-1)
        ids = torch.multinomial(probs, 1, generator=gen)[None]
        seen.append(int(ids))
    return bytes(seen).decode("ascii", "replace")


def batch_at(train, step, batch):
    """The windows of a step depend only on its number, so a resumed run is the
    same run.  Every fourth step has windows twice as long (and half as many),
    so that the whole context is trained."""
    window = 2 * WINDOW if step % 4 == 3 else WINDOW
    rng = np.random.default_rng((SEED, step))
    starts = rng.integers(0, len(train) - window - 1, batch * WINDOW // window)
    rows = np.stack([train[s:s + window + 1] for s in starts]).astype(np.int64)
    return torch.from_numpy(rows)


def train_model(args):
    torch.manual_seed(SEED)
    train, held = load_text()
    model = Model()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    scales = [p for p in model.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                             {"params": scales, "weight_decay": 0.0}],
                            lr=args.lr, betas=(0.9, 0.95))
    start, before = 0, 0.0
    path = os.path.join(args.work, "checkpoint.pt")
    if args.resume and os.path.exists(path):
        saved = torch.load(path)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        start, before = saved["step"], saved["seconds"]
    log = open(os.path.join(args.work, "train.log"), "a" if start else "w")

    def say(text):
        print(text, flush=True)
        print(text, file=log, flush=True)

    def save(step):
        torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step,
                    "seconds": before + time.time() - begin}, path + ".new")
        os.replace(path + ".new", path)

    if not start:
        count = sum(p.numel() for p in model.parameters())
        say(f"parameters {count}, training bytes {len(train)}, held-out bytes {len(held)}")
        say(f"steps {args.steps}, batch {args.batch} x {WINDOW}, peak lr {args.lr}, seed {SEED}")
        say("step train_loss held_out_loss lr seconds")
    begin = saved_at = time.time()
    recent = []
    for step in range(start, args.steps):
        seconds = before + time.time() - begin
        # The clock only takes over the schedule if the machine is too slow.
        done = max(step / args.steps, seconds / (60 * args.minutes))
        if done >= 1:
            break
        lr = args.lr * min((step + 1) / 200, 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in opt.param_groups:
            group["lr"] = lr
        rows = batch_at(train, step, args.batch)
        loss = F.cross_entropy(model.logits(rows[:, :-1]).view(-1, VOCAB), rows[:, 1:].flatten())
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        recent.append(loss.item())
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            say(f"{step + 1} {np.mean(recent):.4f} {held_out_loss(model, held):.4f} "
                f"{lr:.6f} {before + time.time() - begin:.0f}")
            recent = []
        if time.time() - saved_at > 120:
            saved_at = time.time()
            save(step + 1)
    save(args.steps)
    loss = held_out_loss(model, held)
    say(f"final held-out loss {loss:.4f} nats per byte, perplexity {math.exp(loss):.4f}")
    say("sample at temperature 0.8:\n" + sample(model, "And it came to pass", 480))


# ---- export --------------------------------------------------------------

def load_model(args):
    model = Model()
    model.load_state_dict(torch.load(os.path.join(args.work, "checkpoint.pt"))["model"])
    return model.eval()


def export(args):
    import onnx
    model = load_model(args)
    train, held = load_text()
    os.makedirs(args.out, exist_ok=True)
    new, old = "sequence_length", "past_sequence_length"
    both = old + " + " + new
    pasts = [f"past_key_values.{i}.{kv}" for i in range(LAYERS) for kv in ("key", "value")]
    presents = [f"present.{i}.{kv}" for i in range(LAYERS) for kv in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids"] + pasts
    outputs = ["logits"] + presents
    dims = {"input_ids": ["batch_size", new], "attention_mask": ["batch_size", both],
            "position_ids": ["batch_size", new], "logits": ["batch_size", new, VOCAB]}
    dims.update({n: ["batch_size", KV_HEADS, old, HEAD_DIM] for n in pasts})
    dims.update({n: ["batch_size", KV_HEADS, both, HEAD_DIM] for n in presents})
    axes = {n: {i: d for i, d in enumerate(ds) if isinstance(d, str)} for n, ds in dims.items()}
    ids = torch.ones(2, 3, dtype=torch.long)
    example = (ids, torch.ones(2, 8, dtype=torch.long), torch.arange(5, 8).expand(2, 3),
               *[torch.zeros(2, KV_HEADS, 5, HEAD_DIM) for _ in pasts])
    path = os.path.join(args.out, "sample.onnx")
    torch.onnx.export(model, example, path, input_names=inputs, output_names=outputs,
                      dynamic_axes=axes, opset_version=17, do_constant_folding=True)
    # The exporter invents names for sizes of outputs it cannot derive.
    proto = onnx.load(path)
    for value in proto.graph.output:
        for dim, want in zip(value.type.tensor_type.shape.dim, dims[value.name]):
            if isinstance(want, str):
                dim.dim_param = want
            else:
                dim.dim_value = want
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    np.save(os.path.join(args.out, "eval.npy"), held.astype(np.int32))
    # Calibration: windows spread evenly over the training text, one after another.
    starts = np.linspace(0, len(train) - WINDOW, CALIB_TOKENS // WINDOW).astype(int)
    calib = np.concatenate([train[s:s + WINDOW] for s in starts])
    np.save(os.path.join(args.out, "calib.npy"), calib.astype(np.int32))
    shutil.copy(os.path.join(args.work, "train.log"), args.out)
    counts = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    print(f"sample.onnx: {os.path.getsize(path)} bytes, {len(proto.graph.node)} nodes")
    print(" ".join(f"{op} {n}" for op, n in sorted(counts.items())))


# ---- check ---------------------------------------------------------------

def numpy_logits(weights, tokens):
    """The whole model for one unpadded sequence, written on its own in float64."""
    w = {name: t.numpy().astype(np.float64) for name, t in weights.items()}
    count = len(tokens)
    pos = np.arange(count)[:, None, None]
    angle = pos * THETA ** (-np.arange(HEAD_DIM // 2) * 2.0 / HEAD_DIM)

    def norm(x, scale):
        return scale * x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)

    def rotate(x):
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                               b * np.cos(angle) + a * np.sin(angle)], axis=-1)

    x = w["embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        def mat(name):
            return w[f"layers.{i}.{name}.weight"]
        h = norm(x, mat("input_layernorm"))
        q = rotate((h @ mat("self_attn.q_proj").T).reshape(count, HEADS, HEAD_DIM))
        k = rotate((h @ mat("self_attn.k_proj").T).reshape(count, KV_HEADS, HEAD_DIM))
        v = (h @ mat("self_attn.v_proj").T).reshape(count, KV_HEADS, HEAD_DIM)
        heads = []
        for j in range(HEADS):
            g = j * KV_HEADS // HEADS
            s = q[:, j] @ k[:, g].T / np.sqrt(HEAD_DIM)
            s[np.triu_indices(count, 1)] = -np.inf
            e = np.exp(s - s.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, g])
        x = x + np.concatenate(heads, axis=-1) @ mat("self_attn.o_proj").T
        h = norm(x, mat("post_attention_layernorm"))
        gate = h @ mat("mlp.gate_proj").T
        h = gate / (1 + np.exp(-gate)) * (h @ mat("mlp.up_proj").T)
        x = x + h @ mat("mlp.down_proj").T
    return norm(x, w["norm.weight"]) @ w["lm_head.weight"].T


@torch.no_grad()
def check(args):
    model, held = load_model(args), load_text()[1]
    ids = torch.from_numpy(held[:CONTEXT].astype(np.int64))[None]
    whole = model.logits(ids)

    def report(what, a, b):
        worst = float(np.abs(np.asarray(a) - np.asarray(b)).max())
        print(f"{what}: largest difference {worst:.2e}", "ok" if worst < 1e-3 else "BAD")

    report("NumPy forward", whole[0], numpy_logits(model.state_dict(), held[:CONTEXT]))
    # A prefill, then pieces of several sizes through the cache.
    parts, past, at = [], [], 0
    for size in [100] + [1] * 20 + [7] * 10:
        where = torch.arange(at, at + size)[None]
        mask = torch.ones(1, at + size, dtype=torch.long)
        logits, *past = model(ids[:, at:at + size], mask, where, *past)
        parts.append(logits)
        at += size
    report("cached decode", torch.cat(parts, 1), whole[:, :at])
    # Two rows, the second shorter and padded on the left, prefill and one step.
    pad, size = 13, 64
    rows = torch.stack([ids[0, :size], torch.cat([torch.zeros(pad, dtype=torch.long),
                                                  ids[0, :size - pad]])])
    mask = torch.ones(2, size, dtype=torch.long)
    mask[1, :pad] = 0
    where = (mask.cumsum(1) - 1).clamp(min=0)
    logits, *past = model(rows[:, :-1], mask[:, :-1], where[:, :-1])
    last = model(rows[:, -1:], mask, where[:, -1:], *past)[0]
    assert torch.isfinite(logits).all()
    report("left padding", logits[1, pad:], whole[0, :size - pad - 1])
    report("left padding, cached", last[1, 0], whole[0, size - pad - 1])
    loss = held_out_loss(model, held)
    print(f"held-out loss {loss:.4f} nats per byte, perplexity {math.exp(loss):.4f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("command", choices=["train", "export", "check"])
    ap.add_argument("--work", default="/tmp/train_sample", help="checkpoint and log")
    ap.add_argument("--out", default="tests/models/sample")
    ap.add_argument("--steps", type=int, default=4800)
    ap.add_argument("--minutes", type=float, default=47, help="hard limit of training time")
    ap.add_argument("--batch", type=int, default=8, help=f"windows of {WINDOW} bytes a step")
    ap.add_argument("--lr", type=float, default=2.5e-3)
    ap.add_argument("--every", type=int, default=100, help="steps between log lines")
    ap.add_argument("--resume", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.makedirs(args.work, exist_ok=True)
    {"train": train_model, "export": export, "check": check}[args.command](args)


if __name__ == "__main__":
    main()
