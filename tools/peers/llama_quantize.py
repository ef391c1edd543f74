"""llama.cpp's quantizer, on the weights of a decoder in ONNX.

The weights are written as GGUF, quantized by libllama to one of its mixes of formats, read back and
made float by libggml, and put in place of the originals: what is measured then is what rounding the
weights costs, whatever computes with them.  Embeddings stay in float (the quantizer is asked to).

Of parameter blocks that the library itself fills only the first numbers are known.
"""
import ctypes
import functools
import glob
import os

import numpy as np

import gguf
from install import Missing, llama_libraries

#        number of llama_ftype
MIXES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q6_K": 18, "IQ4_NL": 25}
F32 = 0  # ggml's number of the type
NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate",
         "up": "ffn_up", "down": "ffn_down", "input": "attn_norm", "post_attention": "ffn_norm",
         "lm_head": "output", "norm": "output_norm", "embedding": "token_embd"}


class _Params(ctypes.Structure):
    _fields_ = [("threads", ctypes.c_int32), ("mix", ctypes.c_int32), ("output_type", ctypes.c_int32),
                ("embedding_type", ctypes.c_int32), ("rest", ctypes.c_uint32 * 252)]


class _GgufParams(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


class _Traits(ctypes.Structure):  # the beginning of ggml_type_traits
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64),
                ("bytes", ctypes.c_size_t), ("quantized", ctypes.c_bool), ("to_float", ctypes.c_void_p)]


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@functools.cache
class Quantizer:
    """The libraries, once for the process: they keep the function that hears what they say."""

    def __init__(self):
        folder = llama_libraries()
        self.base, ggml, self.llama = (
            ctypes.CDLL(glob.glob(os.path.join(folder, name))[0], ctypes.RTLD_GLOBAL)
            for name in ("libggml-base.so", "libggml.v*.so", "libllama.v*.so"))
        self.said = []
        self.log = _LOG(lambda level, text, _: self.said.append(text.decode(errors="replace"))
                        if level == 4 else None)
        self.base.ggml_log_set(self.log, None)
        self.llama.llama_log_set(self.log, None)
        ggml.ggml_backend_load_all_from_path(folder.encode())
        for name, result, parameters in (
                ("gguf_init_from_file", ctypes.c_void_p, (ctypes.c_char_p, _GgufParams)),
                ("gguf_get_n_tensors", ctypes.c_int64, (ctypes.c_void_p,)),
                ("gguf_get_data_offset", ctypes.c_size_t, (ctypes.c_void_p,)),
                ("gguf_get_tensor_name", ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_int64)),
                ("gguf_get_tensor_type", ctypes.c_int, (ctypes.c_void_p, ctypes.c_int64)),
                ("gguf_get_tensor_offset", ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_int64)),
                ("gguf_get_tensor_size", ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_int64)),
                ("gguf_free", None, (ctypes.c_void_p,)),
                ("ggml_get_type_traits", ctypes.POINTER(_Traits), (ctypes.c_int,))):
            function = getattr(self.base, name)
            function.restype, function.argtypes = result, parameters
        self.llama.llama_model_quantize_default_params.restype = _Params
        self.llama.llama_model_quantize.restype = ctypes.c_uint32
        self.llama.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p,
                                                    ctypes.POINTER(_Params))

    def quantize(self, source, out, mix):
        params = self.llama.llama_model_quantize_default_params()
        self.said.clear()
        params.mix, params.embedding_type = MIXES[mix], F32
        if self.llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(params)):
            raise Missing(f"llama.cpp: {' '.join(self.said).strip() or 'cannot quantize'}")

    def read(self, path):
        """{name: (numbers as float, bytes they took)}"""
        base = self.base
        file = base.gguf_init_from_file(path.encode(), _GgufParams(True, None))
        if not file:
            raise Missing(f"llama.cpp: {path} cannot be read")
        data = np.fromfile(path, np.uint8)[base.gguf_get_data_offset(file):]
        out = {}
        for i in range(base.gguf_get_n_tensors(file)):
            kind = base.gguf_get_tensor_type(file, i)
            traits = base.ggml_get_type_traits(kind).contents
            start, size = base.gguf_get_tensor_offset(file, i), base.gguf_get_tensor_size(file, i)
            raw = np.ascontiguousarray(data[start:start + size])
            numbers = raw.view(np.float32)
            if kind != F32:
                numbers = np.empty(size // traits.bytes * traits.block, np.float32)
                _TO_FLOAT(traits.to_float)(raw.ctypes.data, numbers.ctypes.data, numbers.size)
            out[base.gguf_get_tensor_name(file, i).decode()] = numbers, size
        base.gguf_free(file)
        return out


def named(weights):
    """(name in GGUF, array [in, out] or gain, is a linear layer) of all `weights`."""
    for i, layer in enumerate(weights.layers):
        for kind, array in layer.items():
            yield f"blk.{i}.{NAMES[kind]}.weight", array, array.ndim == 2
    for kind, array in weights.top.items():
        yield NAMES[kind] + ".weight", array, kind == "lm_head"


def shape(weights):
    layer, (vocab, dim) = weights.layers[0], weights.top["embedding"].shape
    return {"dim": dim, "layers": len(weights.layers), "heads": dim // weights.head_size,
            "kv_heads": layer["v"].shape[1] // weights.head_size, "ffn": layer["up"].shape[1],
            "vocab": vocab}


def round_weights(weights, mix, scratch):
    """Rounds all linear layers of `weights` as llama.cpp does; their bits per weight."""
    quantizer = Quantizer()
    paths = scratch(f"{mix}-f32.gguf"), scratch(f"{mix}.gguf")
    gguf.write(paths[0], shape(weights), "f32",
               {name: array.T if linear else array for name, array, linear in named(weights)})
    quantizer.quantize(*paths, mix)
    rounded, size, count = quantizer.read(paths[1]), 0, 0
    for name, array, linear in named(weights):
        numbers, taken = rounded[name]
        if linear:
            array[:] = numbers.reshape(array.shape[::-1]).T
            size, count = size + taken, count + array.size
    for path in paths:
        os.remove(path)
    return 8 * size / count
