"""The small models of `tools/bench tiny`: where a run takes microseconds, overhead is what counts.

One Relu of four numbers is nothing but overhead.  The others are a perceptron of three layers, a small
convolutional network and a decoder; the last two are data that need not be there.
"""
import os

import numpy as np

from install import compiled
from onnx_wire import FLOAT, Model
from turns import Program

LAYERS = (64, 128, 64, 10)
PROMPT = 64         # tokens of a decoder before the runs that are measured, and as many of those
TOLERANCE = 1e-4    # of outputs, relative to the largest
FIGURES = ("run_us", "load_us", "first_us", "peak_mb")


def relu(path):
    model = Model(path, False)
    x = model.input("x", FLOAT, [4])
    model.node("Relu", [x], "relu", [model.output("y", FLOAT, [4])])
    model.save()


def perceptron(path):
    """As PyTorch exports it: weights [out, in]."""
    model = Model(path, False)
    x = model.input("x", FLOAT, [1, LAYERS[0]])
    for i, (k, n) in enumerate(zip(LAYERS, LAYERS[1:])):
        w = model.normal(f"w{i}", [n, k], k ** -0.5)
        b = model.normal(f"b{i}", [n], 0.1)
        last = i == len(LAYERS) - 2
        out = [model.output("y", FLOAT, [1, n])] if last else None
        x = model.node("Gemm", [x, w, b], f"layer{i}", out, transB=1)
        if not last:
            x = model.node("Relu", [x], f"relu{i}")
    model.save()


# A frame of speech: 64 samples that were there before, 512 new ones.
FRAME = ("input=1,576", "state=2,1,128", "sr:16000")

# name, what makes it or where it is below NIBBLE_DATA, tokens of a prompt (0: no decoder), what its
# inputs are where ones will not do (tiny.h)
MODELS = (("one Relu of 4", relu, 0, ()), ("MLP " + "-".join(map(str, LAYERS)), perceptron, 0, ()),
          ("mnist_cnn", "vision/mnist_cnn.onnx", 0, ()),
          ("Silero VAD", "audio/silero_vad_op18.onnx", 0, FRAME),
          ("Silero VAD v5", "audio/silero_vad_v5.onnx", 0, FRAME),
          ("stories260K", "llm/stories260K.plain-op17.onnx", PROMPT, ()))


def find(source, data, scratch):
    """The path of a model, or None."""
    if not callable(source):
        path = os.path.join(data, source)
        return path if os.path.exists(path) else None
    path = scratch(source.__name__ + ".onnx")
    source(path)
    return path


def contenders(peers, runtime, model, program, prompt, inputs, scratch):
    """(name, function that makes it, file it writes its outputs to)."""
    def figures(j):
        return [j[f] for f in FIGURES]

    out = []
    if "ort" in peers:
        path = scratch("tiny.ort")
        out.append(("onnxruntime", lambda: Program(
            [*peers["ort"], "tiny", model, 1, prompt, path, *inputs], figures), path))
    if program:
        mine = scratch("tiny.compiled")
        out.append(("Nibble", lambda: Program(
            [*compiled(runtime), program, prompt, mine, *inputs], figures), mine))
    return out


def difference(a, b):
    """Of two files of outputs: the largest, relative to the largest number; None: not comparable."""
    x, y = np.fromfile(a, "<f4"), np.fromfile(b, "<f4")
    if x.shape != y.shape or not np.isfinite(x).all():
        return None
    return float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))
