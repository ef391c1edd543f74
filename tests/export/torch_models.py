#!/usr/bin/python3
"""Small PyTorch models with random weights, exported by torch.onnx, and what PyTorch computes with them.

usage: tests/export/torch_models.py FOLDER

The code of each follows that of Hugging Face's transformers, or torchvision's, where it decides what the exported
graph looks like: views with sizes taken from tensors, masks as buffers, caches as inputs and outputs.  Writes
NAME.onnx, and for each run NAME.N.in.npz and NAME.N.out.npz, arrays by input and output.  Runs of one model differ
in batch and length, and go on from the caches of those before.
"""
import os
import sys

import numpy as np
import torch
from torch import nn

DIM, HEADS, VOCAB, CONTEXT = 64, 4, 96, 48
SIZE = DIM // HEADS


def split(x):
    return x.view(x.size(0), x.size(1), HEADS, SIZE).permute(0, 2, 1, 3)


def merge(x):
    x = x.permute(0, 2, 1, 3).contiguous()
    return x.view(x.size(0), x.size(1), DIM)


def attend(q, k, v, mask=None):
    scores = torch.matmul(q, k.transpose(-1, -2)) / SIZE ** 0.5
    return torch.matmul(nn.functional.softmax(scores if mask is None else scores + mask, dim=-1), v)


def names(what, layers, prefix, kinds=("",)):
    return [f"{what}.{i}.{kind}{kv}" if prefix else f"{what}.{i}.{kv}"
            for i in range(layers) for kind in kinds for kv in ("key", "value")]


# ---- GPT-2: packed projections as addmm, a causal mask that is a buffer, tanh GELU, tied head ----

class Conv1D(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in ** 0.5)
        self.bias = nn.Parameter(torch.randn(n_out) * 0.02)

    def forward(self, x):
        size = x.size()[:-1] + (self.weight.size(1),)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


def gelu_new(x):
    return 0.5 * x * (1.0 + torch.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3.0))))


class Gpt2Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.c_attn, self.c_proj = Conv1D(DIM, 3 * DIM), Conv1D(DIM, DIM)
        self.c_fc, self.c_out = Conv1D(DIM, 4 * DIM), Conv1D(4 * DIM, DIM)
        mask = torch.tril(torch.ones((CONTEXT, CONTEXT), dtype=torch.bool))
        self.register_buffer("bias", mask.view(1, 1, CONTEXT, CONTEXT))

    def forward(self, x, mask, past):
        q, k, v = self.c_attn(self.ln_1(x)).split(DIM, dim=2)
        q, k, v = split(q), split(k), split(v)
        k, v = torch.cat((past[0], k), dim=-2), torch.cat((past[1], v), dim=-2)
        scores = torch.matmul(q, k.transpose(-1, -2)) / torch.full([], v.size(-1) ** 0.5)
        rows, keys = q.size(-2), k.size(-2)
        causal = self.bias[:, :, keys - rows:keys, :keys]
        scores = torch.where(causal, scores, torch.full([], torch.finfo(scores.dtype).min)) + mask
        x = x + self.c_proj(merge(torch.matmul(nn.functional.softmax(scores, dim=-1), v)))
        return x + self.c_out(gelu_new(self.c_fc(self.ln_2(x)))), (k, v)


class Gpt2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, DIM), nn.Embedding(CONTEXT, DIM)
        self.h = nn.ModuleList(Gpt2Block() for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(DIM), nn.Linear(DIM, VOCAB, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, input_ids, attention_mask, position_ids, *past):
        x = self.wte(input_ids) + self.wpe(position_ids)
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        caches = []
        for i, block in enumerate(self.h):
            x, cache = block(x, mask, past[2 * i:2 * i + 2])
            caches += cache
        return (self.lm_head(self.ln_f(x)), *caches)


def gpt2():
    past, present = names("past_key_values", 2, False), names("present", 2, False)
    axes = {"input_ids": {0: "batch_size", 1: "sequence_length"}, "position_ids": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "past_sequence_length + 1"},
            **{x: {0: "batch_size", 2: "past_sequence_length"} for x in past},
            **{x: {0: "batch_size", 2: "past_sequence_length + 1"} for x in present}}

    def runs(out):
        def feed(ids, caches, hidden=0):
            batch, n = ids.shape
            old = caches[0].shape[2]
            mask = np.ones((batch, old + n), np.int64)
            mask[-1, :hidden] = 0
            return {"input_ids": ids, "attention_mask": mask,
                    "position_ids": np.tile(np.arange(old, old + n), (batch, 1)), **dict(zip(past, caches))}

        rng = np.random.default_rng(1)
        out(feed(rng.integers(0, VOCAB, (2, 4)), [rng.standard_normal((2, HEADS, 3, SIZE)).astype("f4")] * 4))
        empty = [np.zeros((1, HEADS, 0, SIZE), np.float32)] * 4
        ids = [1, 2, 3]
        for _ in range(8):
            ids.append(int(out(feed(np.array([ids]), empty), len(ids) < 10)[0][0, -1].argmax()))
        out.text(ids)
        found = out(feed(rng.integers(0, VOCAB, (3, 5)), [np.repeat(x, 3, 0) for x in empty], 2))
        found = out(feed(rng.integers(0, VOCAB, (3, 1)), found[1:], 2))
        out(feed(rng.integers(0, VOCAB, (3, 4)), found[1:], 2))

    return Gpt2(), ["input_ids", "attention_mask", "position_ids", *past], ["logits", *present], axes, runs


# ---- BERT: erf GELU, a mask of the smallest number, a pooler --------------------------------------

class BertLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(DIM, DIM) for _ in range(4))
        self.up, self.down = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)
        self.norm_1, self.norm_2 = nn.LayerNorm(DIM, eps=1e-12), nn.LayerNorm(DIM, eps=1e-12)

    def forward(self, x, mask):
        h = merge(attend(split(self.query(x)), split(self.key(x)), split(self.value(x)), mask))
        x = self.norm_1(self.dense(h) + x)
        return self.norm_2(self.down(nn.functional.gelu(self.up(x))) + x)


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.place, self.kind = nn.Embedding(VOCAB, DIM), nn.Embedding(CONTEXT, DIM), nn.Embedding(2, DIM)
        self.register_buffer("position_ids", torch.arange(CONTEXT).expand((1, -1)))
        self.norm = nn.LayerNorm(DIM, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer() for _ in range(2))
        self.pooler = nn.Linear(DIM, DIM)

    def forward(self, input_ids, attention_mask, token_type_ids):
        x = self.word(input_ids) + self.kind(token_type_ids) + self.place(self.position_ids[:, :input_ids.size(1)])
        x = self.norm(x)
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


def bert():
    inputs = ["input_ids", "attention_mask", "token_type_ids"]

    def runs(out):
        rng = np.random.default_rng(2)
        for batch, n in ((2, 9), (1, 5), (4, 16)):
            mask = np.ones((batch, n), np.int64)
            mask[-1, n - 3:] = 0
            out({"input_ids": rng.integers(0, VOCAB, (batch, n)), "attention_mask": mask,
                 "token_type_ids": rng.integers(0, 2, (batch, n))})

    return (Bert(), inputs, ["last_hidden_state", "pooler_output"],
            {x: {0: "batch_size", 1: "sequence_length"} for x in inputs + ["last_hidden_state"]}, runs)


# ---- Whisper: convolutions over a spectrogram, and a decoder with caches of both attentions -------

class WhisperAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.k_proj = nn.Linear(DIM, DIM, bias=False)
        self.v_proj, self.q_proj, self.out_proj = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def shape(self, x, n):
        return x.view(x.size(0), n, HEADS, SIZE).transpose(1, 2).contiguous()

    def forward(self, x, k, v, mask=None):
        """Scores of heads as a batch of matrices, as transformers has them."""
        batch, n, _ = x.size()
        q = self.shape(self.q_proj(x) * SIZE ** -0.5, n).view(batch * HEADS, -1, SIZE)
        scores = torch.bmm(q, k.reshape(batch * HEADS, -1, SIZE).transpose(1, 2))
        if mask is not None:
            scores = (scores.view(batch, HEADS, n, -1) + mask).view(batch * HEADS, n, -1)
        x = torch.bmm(nn.functional.softmax(scores, dim=-1), v.reshape(batch * HEADS, -1, SIZE))
        x = x.view(batch, HEADS, n, SIZE).transpose(1, 2)
        return self.out_proj(x.reshape(batch, n, DIM))

    def keys(self, x):
        return self.shape(self.k_proj(x), -1), self.shape(self.v_proj(x), -1)


class WhisperLayer(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.self_attn, self.norm_1 = WhisperAttention(), nn.LayerNorm(DIM)
        if decoder:
            self.encoder_attn, self.norm_2 = WhisperAttention(), nn.LayerNorm(DIM)
        self.fc1, self.fc2, self.norm_3 = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM), nn.LayerNorm(DIM)

    def feed(self, x):
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm_3(x))))


class WhisperEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(20, DIM, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(DIM, DIM, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(CONTEXT, DIM)
        self.layers, self.norm = nn.ModuleList(WhisperLayer(False) for _ in range(2)), nn.LayerNorm(DIM)

    def forward(self, input_features):
        x = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(input_features)))).permute(0, 2, 1)
        x = x + self.embed_positions.weight
        for layer in self.layers:
            h = layer.norm_1(x)
            x = layer.feed(x + layer.self_attn(h, *layer.self_attn.keys(h)))
        return self.norm(x)


class WhisperDecoder(nn.Module):
    """`with_past`: one new token, both caches are inputs; or a prompt, and caches are outputs."""

    def __init__(self):
        super().__init__()
        self.embed_tokens, self.embed_positions = nn.Embedding(VOCAB, DIM), nn.Embedding(CONTEXT, DIM)
        self.layers, self.norm = nn.ModuleList(WhisperLayer(True) for _ in range(2)), nn.LayerNorm(DIM)
        self.with_past = False

    def forward(self, input_ids, *given):
        old = given[0].size(2) if self.with_past else 0
        n = input_ids.size(1)
        x = self.embed_tokens(input_ids) + self.embed_positions.weight[old:old + n]
        mask = None
        if not self.with_past:
            mask = torch.full((n, n), torch.finfo(x.dtype).min)
            at = torch.arange(mask.size(-1))
            mask = mask.masked_fill(at < (at + 1).view(mask.size(-1), 1), 0)
        caches = []
        for i, layer in enumerate(self.layers):
            h = layer.norm_1(x)
            k, v = layer.self_attn.keys(h)
            if self.with_past:
                k, v = torch.cat([given[4 * i], k], dim=2), torch.cat([given[4 * i + 1], v], dim=2)
            x = x + layer.self_attn(h, k, v, mask)
            far = given[4 * i + 2:4 * i + 4] if self.with_past else layer.encoder_attn.keys(given[0])
            x = layer.feed(x + layer.encoder_attn(layer.norm_2(x), *far))
            caches += [k, v] if self.with_past else [k, v, *far]
        return (torch.matmul(self.norm(x), self.embed_tokens.weight.t()), *caches)


def whisper_encoder():
    def runs(out):
        for batch in (1, 3):
            out({"input_features": np.random.default_rng(3).standard_normal((batch, 20, 2 * CONTEXT)).astype("f4")})

    return (WhisperEncoder(), ["input_features"], ["last_hidden_state"],
            {x: {0: "batch_size"} for x in ("input_features", "last_hidden_state")}, runs)


def whisper_caches(what):
    return names(what, 2, True, ("decoder.", "encoder."))


def whisper_decoder(with_past=False):
    torch.manual_seed(7)  # both halves have the same weights
    model = WhisperDecoder()
    present, past = whisper_caches("present"), whisper_caches("past_key_values")
    tokens = {0: "batch_size", 1: "decoder_sequence_length"}
    sizes = {x: {0: "batch_size", 2: ("encoder" if "encoder" in x else "past_decoder") + "_sequence_length"}
             for x in past}
    rng = np.random.default_rng(4)

    def prompts(out):
        for batch, n, far in ((1, 4, 11), (2, 6, 9)):
            out({"input_ids": rng.integers(0, VOCAB, (batch, n)),
                 "encoder_hidden_states": rng.standard_normal((batch, far, DIM)).astype("f4")})

    def steps(out):
        for batch, old, far in ((1, 4, 11), (2, 7, 9)):
            out({"input_ids": rng.integers(0, VOCAB, (batch, 1)),
                 **{x: rng.standard_normal((batch, HEADS, far if "encoder" in x else old, SIZE)).astype("f4")
                    for x in past}})

    if not with_past:
        return (model, ["input_ids", "encoder_hidden_states"], ["logits", *present],
                {"input_ids": tokens, "encoder_hidden_states": {0: "batch_size", 1: "encoder_sequence_length"},
                 **{x: {0: "batch_size", 2: ("encoder" if "encoder" in x else "decoder") + "_sequence_length"}
                    for x in present}}, prompts)
    model.with_past = True
    own = [x for x in present if "encoder." not in x]
    return (model, ["input_ids", *past], ["logits", *own],
            {"input_ids": {0: "batch_size"}, **sizes,
             **{x: {0: "batch_size", 2: "past_decoder_sequence_length + 1"} for x in own}}, steps)


# ---- MobileNet v3: depthwise convolutions, squeeze and excitation, hard activations ---------------

class Inverted(nn.Module):
    def __init__(self, n_in, wide, n_out, kernel, stride, squeeze, act):
        super().__init__()
        self.residual = stride == 1 and n_in == n_out
        self.expand = nn.Sequential(nn.Conv2d(n_in, wide, 1, bias=False), nn.BatchNorm2d(wide), act())
        self.depth = nn.Sequential(nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False),
                                   nn.BatchNorm2d(wide), act())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 16, 1), nn.ReLU(),
                                     nn.Conv2d(16, wide, 1), nn.Hardsigmoid()) if squeeze else None
        self.project = nn.Sequential(nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        y = self.depth(self.expand(x))
        y = self.project(y if self.squeeze is None else self.squeeze(y) * y)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.blocks = nn.Sequential(Inverted(16, 48, 24, 3, 2, False, nn.ReLU6), Inverted(24, 72, 24, 3, 1, False, nn.ReLU),
                                    Inverted(24, 72, 40, 5, 2, True, nn.Hardswish), Inverted(40, 96, 40, 5, 1, True, nn.Hardswish))
        self.last = nn.Sequential(nn.Conv2d(40, 96, 1, bias=False), nn.BatchNorm2d(96), nn.Hardswish())
        self.classifier = nn.Sequential(nn.Linear(96, 64), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.last(self.blocks(self.stem(x))), 1)
        return self.classifier(torch.flatten(x, 1))


def mobilenet():
    def runs(out):
        for shape in ((1, 3, 32, 32), (2, 3, 48, 40)):
            out({"image": np.random.default_rng(5).standard_normal(shape).astype("f4")})

    return (MobileNet(), ["image"], ["scores"],
            {"image": {0: "batch", 2: "height", 3: "width"}, "scores": {0: "batch"}}, runs)


# ---- ViT: patches by a convolution, a class token that is expanded --------------------------------

class VitLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(DIM, eps=1e-12), nn.LayerNorm(DIM, eps=1e-12)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.up, self.down = nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(self, x):
        """timm's packed projection."""
        batch, n, _ = x.shape
        q, k, v = self.qkv(self.norm_1(x)).reshape(batch, n, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(attend(q, k, v).transpose(1, 2).reshape(batch, n, DIM))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, DIM, kernel_size=8, stride=8)
        self.cls, self.places = nn.Parameter(torch.randn(1, 1, DIM)), nn.Parameter(torch.randn(1, 17, DIM))
        self.layers, self.norm = nn.ModuleList(VitLayer() for _ in range(2)), nn.LayerNorm(DIM, eps=1e-12)
        self.classifier = nn.Linear(DIM, 10)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.norm(x)[:, 0, :])


def vit():
    def runs(out):
        for batch in (1, 3):
            out({"pixel_values": np.random.default_rng(6).standard_normal((batch, 3, 32, 32)).astype("f4")})

    return Vit(), ["pixel_values"], ["logits"], {x: {0: "batch_size"} for x in ("pixel_values", "logits")}, runs


MODELS = {"gpt2": gpt2, "bert": bert, "whisper_encoder": whisper_encoder, "whisper_decoder": whisper_decoder,
          "whisper_decoder_with_past": lambda: whisper_decoder(True), "mobilenet": mobilenet, "vit": vit}


def settle(model):
    """Weights that keep activations of size 1, norms and running statistics that are not trivial."""
    for name, p in model.named_parameters():
        if name.endswith(("bias", "norm.weight")) or p.dim() == 1:
            p.data = (1.0 if name.endswith("weight") else 0.0) + 0.1 * torch.randn_like(p)
        elif "squeeze" in name or isinstance(p, nn.Parameter) and p.dim() == 4:
            p.data = torch.randn_like(p) * (2.0 / p[0].numel()) ** 0.5
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b.copy_(0.1 * torch.randn_like(b))
        elif name.endswith("running_var"):
            b.copy_(0.5 + torch.rand_like(b))
    return model.eval()


def export(folder, name, opset):
    torch.manual_seed(len(name))
    model, inputs, outputs, axes, runs = MODELS[name]()
    settle(model)
    count = 0

    def out(arrays, quietly=False):
        nonlocal count
        given = tuple(torch.from_numpy(np.ascontiguousarray(arrays[x])) for x in inputs)
        with torch.no_grad():
            if count == 0:
                torch.onnx.export(model, given, f"{folder}/{name}.onnx", input_names=inputs, output_names=outputs,
                                  dynamic_axes=axes, opset_version=opset, do_constant_folding=True)
            found = model(*given)
        found = [x.numpy() for x in (found if isinstance(found, tuple) else (found,))]
        if quietly:
            return found
        np.savez(f"{folder}/{name}.{count}.in.npz", **arrays)
        np.savez(f"{folder}/{name}.{count}.out.npz", **dict(zip(outputs, found)))
        count += 1
        return found

    out.text = lambda ids: np.save(f"{folder}/{name}.text.npy", ids)
    runs(out)


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    torch.set_num_threads(1)
    for i, name in enumerate(MODELS):
        export(folder, name, 13 + i % 5)


if __name__ == "__main__":
    main()
