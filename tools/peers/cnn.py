"""The convolutional networks of `tools/bench cnn`, and who runs them.

Int8 of onnxruntime is the Q/DQ model that a model comes with, or else the one that Nibble writes with a
scale for each channel and for each tensor (`--form qdq`).  Ranges are found on noise: what is measured is
time, which does not depend on them.
"""
import os
import subprocess
from typing import NamedTuple

import numpy as np

from turns import Driver, Program, said


class Net(NamedTuple):
    name: str
    path: str            # below NIBBLE_DATA
    input: str
    shape: tuple         # of a run
    dims: tuple = ()     # its symbols
    quantized: str = ""  # the same model with Q/DQ, below NIBBLE_DATA


NETS = (
    Net("text (PP-OCRv4)", "vision/ppocrv4_rec.onnx", "x", (1, 3, 48, 320),
        ("p2o.DynamicDimension.0=1", "p2o.DynamicDimension.1=320")),
    Net("angle (PP-OCR)", "vision/ppocr_cls.onnx", "x", (1, 3, 48, 192),
        ("p2o.DynamicDimension.0=1", "p2o.DynamicDimension.1=48", "p2o.DynamicDimension.2=192")),
    Net("digits (MNIST)", "vision/mnist_cnn.onnx", "input.1", (1, 1, 28, 28)),
    Net("keywords", "audio/micro_kws_fp32.onnx", "serving_default_input:0", (1, 1960),
        quantized="audio/micro_kws_qdq.onnx"),
    Net("speech (openWakeWord)", "audio/oww_embedding.onnx", "input_1", (1, 76, 32, 1), ("unk__314=1",)),
)

# name, scheme, static scales
ROWS = (("f32", "f32", False), ("w8a8", "w8a8", False), ("w8a8 static", "w8a8", True), ("w4a8", "w4a8", False))
AS_GIVEN = "Nibble, the Q/DQ model"


def short(net):
    """What the net is called on the command line."""
    return net.name.split()[0]


def against(name):
    """The contender that a line of Nibble is compared with."""
    return "onnxruntime f32" if name == "Nibble f32" else "onnxruntime int8"


class Programs:
    """What is compiled for a net, in files below `folder`."""

    def __init__(self, nibble, folder, data, say):
        self.nibble, self.folder, self.data, self.say = nibble, folder, data, say
        os.makedirs(folder, exist_ok=True)

    def compile(self, net, model, name, *options):
        """The path of what `options` make of a model, or None; one that is there is used while it is newer
        than the model and Nibble."""
        out = os.path.join(self.folder, name)
        if os.path.exists(out) and os.path.getmtime(out) > max(map(os.path.getmtime, (model, self.nibble))):
            return out
        done = subprocess.run([self.nibble, "compile", model, "-o", out, "--quiet", *options],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return out
        self.say(f"{net.name}, {name}: not measured: {said(done.stderr)}")
        return None

    def noise(self, net):
        path = os.path.join(self.folder, "noise.npz")
        x = np.random.default_rng(1).standard_normal((4, *net.shape[1:])).astype(np.float32)
        np.savez(path, **{net.input: x})
        return ("--act", "static", "--calib", path)

    def all(self, net):
        """({name: compiled model}, the Q/DQ model for onnxruntime or None)."""
        source = os.path.join(self.data, net.path)
        out = {}
        for name, scheme, static in ROWS:
            options = self.noise(net) if static else ()
            out[f"Nibble {name}"] = self.compile(net, source, scheme + static * "-static" + ".so", "--scheme",
                                                 scheme, *options)
        if net.quantized:
            given = os.path.join(self.data, net.quantized)
            out[AS_GIVEN] = self.compile(net, given, "given.so", "--scheme", "f32")
            return out, given
        return out, self.compile(net, source, "qdq.onnx", "--scheme", "w8a8", "--group", "0",
                                 *self.noise(net))


def contenders(nibble, ort, net, data, programs, quantized, threads):
    """[(name, function that starts it)]; figures are seconds for a run."""
    out = []
    shape = ",".join(map(str, net.shape))
    if ort:
        models = {"onnxruntime f32": os.path.join(data, net.path), "onnxruntime int8": quantized}
        out += [(name, lambda m=model: Driver([*ort, "net", m, threads, shape], threads))
                for name, model in models.items() if model]
    # The Q/DQ model names its symbols by itself.
    def dims(name):
        return [] if name == AS_GIVEN else [w for d in net.dims for w in ("--dim", d)]
    out += [(name, lambda p=program, n=name: Program(
        [nibble, "bench", p, "--threads", threads, "--json", *dims(n)], lambda j: [1e-3 * j["median_ms"]]))
            for name, program in programs.items() if program]
    return out
