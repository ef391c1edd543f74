"""Writes a llama decoder as GGUF, which llama.cpp reads: given weights, or the shape of a
tools/make_model with random ones.

Random blocks are bytes with one scale, chosen so that the numbers keep activations at their size; the
large tensors have the types that llama.cpp's own quantizer would give them.
"""
import math
import struct

import numpy as np

U32, F32, STRING = 4, 6, 8  # types of values in the header
#             number, numbers in a block, layout, spread of the numbers when the scale is 1
TYPES = {
    "f32": (0, 1, np.dtype([("d", "<f4")]), None),
    "q4_0": (2, 32, np.dtype([("d", "<f2"), ("q", "u1", 16)]), 4.61),
    "q8_0": (8, 32, np.dtype([("d", "<f2"), ("q", "u1", 32)]), 73.9),
    "q6_k": (14, 256, np.dtype([("q", "u1", 192), ("scales", "i1", 16), ("d", "<f2")]), 18.5 * 32),
}
_BLOCKS = 1 << 17  # blocks made at a time


def _string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _value(key, v):
    if isinstance(v, str):
        return _string(key) + struct.pack("<I", STRING) + _string(v)
    kind, form = (F32, "<f") if isinstance(v, float) else (U32, "<I")
    return _string(key) + struct.pack("<I", kind) + struct.pack(form, v)


def _tensors(s, kind):
    """(name, dimensions from the innermost, type) in the order of the file."""
    dim, narrow = s["dim"], s["dim"] // s["heads"] * s["kv_heads"]
    yield "token_embd.weight", (dim, s["vocab"]), kind
    for i in range(s["layers"]):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (dim,), "f32"
        yield b + "attn_q.weight", (dim, dim), kind
        yield b + "attn_k.weight", (dim, narrow), kind
        yield b + "attn_v.weight", (dim, narrow), kind
        yield b + "attn_output.weight", (dim, dim), kind
        yield b + "ffn_norm.weight", (dim,), "f32"
        yield b + "ffn_gate.weight", (dim, s["ffn"]), kind
        yield b + "ffn_up.weight", (dim, s["ffn"]), kind
        yield b + "ffn_down.weight", (s["ffn"], dim), kind
    yield "output_norm.weight", (dim,), "f32"
    yield "output.weight", (dim, s["vocab"]), "q6_k" if kind == "q4_0" and dim % 256 == 0 else kind


def _size(dims, kind):
    _, block, layout, _ = TYPES[kind]
    if dims[0] % block:
        raise ValueError(f"{kind} needs rows of a multiple of {block}, not {dims[0]}")
    return math.prod(dims) // block * layout.itemsize


def _random_blocks(rng, dims, kind):
    """A tensor's bytes, some blocks at a time."""
    _, block, layout, spread = TYPES[kind]
    left = math.prod(dims) // block
    while left:
        n = min(left, _BLOCKS)
        a = np.frombuffer(bytearray(rng.bytes(n * layout.itemsize)), layout)
        a["d"] = 1 / (spread * math.sqrt(dims[0])) if spread else 1
        if "scales" in layout.names:
            a["scales"] = 32
        yield a.tobytes()
        left -= n


def write(path, s, kind, given=None, seed=1):
    """`s` has dim, layers, heads, kv_heads, ffn and vocab; `kind` is q4_0 or q8_0, or f32 with
    `given` tensors, by name, innermost dimension last."""
    values = {
        "general.architecture": "llama", "general.name": "random",
        "llama.context_length": 4096, "llama.embedding_length": s["dim"],
        "llama.block_count": s["layers"], "llama.feed_forward_length": s["ffn"],
        "llama.attention.head_count": s["heads"], "llama.attention.head_count_kv": s["kv_heads"],
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": s["vocab"],
        "llama.rope.dimension_count": s["dim"] // s["heads"],
        "tokenizer.ggml.model": "no_vocab",
    }
    tensors = list(_tensors(s, kind))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    head += b"".join(_value(k, v) for k, v in values.items())
    offset = 0
    for name, dims, t in tensors:
        head += _string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", TYPES[t][0], offset)
        offset += -(-_size(dims, t) // 32) * 32
    rng = np.random.default_rng(seed)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for name, dims, t in tensors:
            if given:
                f.write(np.ascontiguousarray(given[name], "<f4").tobytes())
            else:
                f.writelines(_random_blocks(rng, dims, t))
            f.write(bytes(-_size(dims, t) % 32))
