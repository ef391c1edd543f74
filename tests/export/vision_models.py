#!/usr/bin/python3
"""Small networks on pictures in the forms that PyTorch's users, Paddle2ONNX and onnxruntime's quantizer write: a detector
that ends in NonMaxSuppression, a text recognizer with LSTMs, a MobileNetV3 whose layers multiply dynamic codes; and what
they compute, in NumPy with 64 bits.

usage: tests/export/vision_models.py FOLDER

Writes what written_models.py writes.
"""
import math

import numpy as np

from fused_models import sigmoid, softmax
from onnx_wire import FLOAT, INT64, UINT8
from written_models import MS, Form, dynamic, write_all


def conv(x, w, bias=None, stride=(1, 1), pad=(0, 0), groups=1):
    """x[B,C,H,W], w[M,C/groups,KH,KW]."""
    x = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    patches = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride[0], ::stride[1]]
    b, c, h, n = patches.shape[:4]
    patches = patches.reshape(b, groups, c // groups, h, n, -1)
    y = np.einsum("bgchnk,gmck->bgmhn", patches, w.reshape(groups, -1, c // groups, patches.shape[-1]))
    y = y.reshape(b, -1, h, n)
    return y if bias is None else y + bias[:, None, None]


def pooled(x, kernel):
    """The largest of each window; windows do not overlap."""
    b, c, h, n = x.shape
    return x.reshape(b, c, h // kernel[0], kernel[0], n // kernel[1], kernel[1]).max((3, 5))


# ---- a detector ----------------------------------------------------------

def kept(boxes, scores, least, overlap, most):
    """NonMaxSuppression of boxes [N,4], corners, and scores [N]: places, the best first."""
    places = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] <= least or len(places) == most:
            break
        low, high = np.maximum(boxes[i, :2], boxes[places, :2]), np.minimum(boxes[i, 2:], boxes[places, 2:])
        both = np.clip(high - low, 0, None).prod(-1)
        if not (both / (area[i] + area[places] - both) > overlap).any():
            places.append(i)
    return places


def yolo_nms(path):
    """Convolutions with x * sigmoid(x), a path that is halved and doubled, distances from a grid of anchors, boxes as
    corners, and as many of them as NonMaxSuppression keeps."""
    f, classes, least, overlap, most = Form(path), 3, 0.5, 0.45, 8
    m, sides = f.m, 8
    x = m.input("images", FLOAT, ["batch", 3, "height", "width"])
    m.output("detections", FLOAT, ["detections", 4 + 3])

    def layer(x, name, n_in, n_out, kernel=3, stride=1):
        y = m.node("Conv", [x, f.weight(name, n_out, n_in, kernel, kernel, scale=2 / math.sqrt(n_in * kernel ** 2)),
                            f.vector(name + ".bias", n_out)], f"/{name}/Conv", kernel_shape=[kernel] * 2,
                   strides=[stride] * 2, pads=[kernel // 2] * 4, group=1, dilations=[1, 1])
        return m.node("Mul", [y, m.node("Sigmoid", [y], f"/{name}/Sigmoid")], f"/{name}/Mul")

    a = layer(x, "stem", 3, 16, 3, 2)
    b = layer(a, "down", 16, 32, 3, 2)
    parts = ["/c2f/left", "/c2f/right"]
    m.node("Split", [b, m.ints(16, 16)], "/c2f/Split", parts, axis=1)
    b = m.node("Concat", [*parts, layer(parts[1], "c2f", 16, 16)], "/c2f/Concat", axis=1)
    b = m.node("MaxPool", [b], "/sppf/MaxPool", kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4)
    up = m.node("Resize", [b, "", m.constant("scales", [1, 1, 2, 2], FLOAT)], "/up/Resize", mode="nearest",
                coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    c = layer(m.node("Concat", [up, a], "/up/Concat", axis=1), "head", 48 + 16, 32, 3, 2)
    y = m.node("Conv", [c, f.weight("out", 4 * sides + classes, 32, 1, 1, scale=0.4), f.vector("out.bias", 4 * sides + classes)],
               "/out/Conv", kernel_shape=[1, 1])
    shape = m.node("Shape", [y], "/out/Shape")
    h, w = (m.node("Gather", [shape, m.int(i)], f"/out/Gather_{i}", axis=0) for i in (2, 3))
    y = m.node("Reshape", [y, m.ints(0, 4 * sides + classes, -1)], "/out/Reshape")
    box, score = "/box", "/score"
    m.node("Split", [y, m.ints(4 * sides, classes)], "/out/Split", [box, score], axis=1)
    # Distances: the mean of a softmax over eight steps, for each of four sides.
    box = m.node("Reshape", [box, m.ints(0, 4, sides, -1)], "/dfl/Reshape")
    box = m.node("Softmax", [m.node("Transpose", [box], "/dfl/Transpose", perm=[0, 2, 1, 3])], "/dfl/Softmax", axis=1)
    box = m.node("Conv", [box, m.constant("steps", np.arange(sides).reshape(1, -1, 1, 1), FLOAT)], "/dfl/Conv",
                 kernel_shape=[1, 1])
    box = m.node("Squeeze", [box, m.ints(1)], "/dfl/Squeeze")
    # Anchors: the middles of a grid as large as the features.
    grid = [m.node("Add", [m.node("Cast", [m.node("Range", [m.int(0), n, m.int(1)], f"/grid/Range_{i}")], f"/grid/Cast_{i}",
                                  to=FLOAT), m.float(0.5)], f"/grid/Add_{i}") for i, n in enumerate((h, w))]
    size = m.node("Concat", [m.node("Unsqueeze", [n, m.ints(0)], f"/grid/Size_{i}") for i, n in enumerate((h, w))],
                  "/grid/Concat", axis=0)
    rows, columns = (m.node("Reshape", [m.node("Expand", [m.node("Unsqueeze", [g, m.ints(1 - i)], f"/grid/Axis_{i}"), size],
                                               f"/grid/Expand_{i}"), m.ints(-1)], f"/grid/Flat_{i}")
                     for i, g in enumerate(grid))
    anchors = m.node("Concat", [m.node("Unsqueeze", [g, m.ints(0)], f"/grid/Row_{g[-16:]}") for g in (columns, rows)],
                     "/grid/Anchors", axis=0)
    low = m.node("Sub", [anchors, m.node("Slice", [box, m.ints(0), m.ints(2), m.ints(1)], "/low/Slice")], "/low/Sub")
    high = m.node("Add", [anchors, m.node("Slice", [box, m.ints(2), m.ints(4), m.ints(1)], "/high/Slice")], "/high/Add")
    box = m.node("Mul", [m.node("Concat", [low, high], "/box/Concat", axis=1), m.float(4)], "/box/Mul")
    score = m.node("Sigmoid", [score], "/score/Sigmoid")
    boxes = m.node("Transpose", [box], "/boxes/Transpose", perm=[0, 2, 1])
    taken = m.node("NonMaxSuppression", [boxes, score, m.constant("most", [most], INT64), m.constant("overlap", [overlap], FLOAT),
                                         m.constant("least", [least], FLOAT)], "/NonMaxSuppression")
    batch, kind, at = (m.node("Gather", [taken, m.int(i)], f"/taken/Gather_{i}", axis=1) for i in range(3))
    spread = [m.node("Unsqueeze", [a, m.ints(1)], f"/taken/Unsqueeze_{i}") for i, a in enumerate((batch, kind, at))]
    where = m.node("Concat", [spread[0], spread[2]], "/where/Concat", axis=1)
    found = m.node("GatherND", [boxes, where], "/found/GatherND")
    sure = m.node("GatherND", [score, m.node("Concat", spread, "/sure/Concat", axis=1)], "/sure/GatherND")
    sure = m.node("Unsqueeze", [sure, m.ints(1)], "/sure/Unsqueeze")
    numbers = [m.node("Cast", [a], f"/number/Cast_{i}", to=FLOAT) for i, a in enumerate(spread[:2])]
    m.node("Concat", [numbers[0], found, sure, numbers[1]], "/detections/Concat", ["detections"], axis=1)
    m.save()

    def swish(x, name, stride=1):
        y = conv(x, f.w[name], f.w[name + ".bias"], (stride,) * 2, (1, 1))
        return y * sigmoid(y)

    def compute(feed):
        a = swish(feed["images"].astype("f8"), "stem", 2)
        b = swish(a, "down", 2)
        b = np.concatenate([b, swish(b[:, 16:], "c2f")], 1)
        wide = np.pad(b, ((0, 0), (0, 0), (2, 2), (2, 2)), constant_values=-np.inf)
        b = np.lib.stride_tricks.sliding_window_view(wide, (5, 5), (2, 3)).max((4, 5))
        c = swish(np.concatenate([b.repeat(2, 2).repeat(2, 3), a], 1), "head", 2)
        y = conv(c, f.w["out"], f.w["out.bias"])
        h, w = y.shape[2:]
        y = y.reshape(*y.shape[:2], -1)
        steps = softmax(y[:, :4 * sides].reshape(len(y), 4, sides, -1).transpose(0, 1, 3, 2)) @ np.arange(sides)
        anchors = np.stack([np.tile(np.arange(w) + 0.5, h), np.repeat(np.arange(h) + 0.5, w)])
        boxes = 4 * np.concatenate([anchors - steps[:, :2], anchors + steps[:, 2:]], 1).transpose(0, 2, 1)
        scores = sigmoid(y[:, 4 * sides:])
        rows = [np.concatenate([[b], boxes[b, i], [scores[b, k, i], k]]) for b in range(len(y)) for k in range(classes)
                for i in kept(boxes[b], scores[b, k], least, overlap, most)]
        return {"detections": np.array(rows).reshape(-1, 7)}

    def runs(out, rng):
        for batch, h, w in ((1, 32, 48), (2, 64, 32)):
            out({"images": rng.random((batch, 3, h, w)).astype("f4")})

    return compute, runs


# ---- text recognition ----------------------------------------------------

def paddle_rec_lstm(path):
    """Convolutions with batch normalization, pooled to a line of features; two LSTMs, both ways; a softmax over
    characters."""
    f, hidden, characters = Form(path, opset=11), 24, 20
    m = f.m
    x = m.input("x", FLOAT, ["batch", 3, 32, "width"])
    m.output("softmax", FLOAT, ["batch", "steps", characters])

    def layer(x, name, n_in, n_out, relu="Relu"):
        x = m.node("Conv", [x, f.weight(name, n_out, n_in, 3, 3, scale=1.5 / math.sqrt(9 * n_in))], name + "/Conv",
                   kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, group=1, dilations=[1, 1])
        x = m.node("BatchNormalization", [x, *(f.vector(f"{name}.{p}", n_out, 1.0 if p in ("scale", "var") else 0.0)
                                               for p in ("scale", "bias", "mean", "var"))], name + "/BN", epsilon=1e-5)
        return m.node(relu, [x], name + "/" + relu)

    def norm(x, name):
        g, b, mean, var = (f.w[f"{name}.{p}"][:, None, None] for p in ("scale", "bias", "mean", "var"))
        return (x - mean) / np.sqrt(np.maximum(var, 0) + 1e-5) * g + b

    x = m.node("MaxPool", [layer(x, "one", 3, 16)], "pool_1", kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("MaxPool", [layer(x, "two", 16, 24)], "pool_2", kernel_shape=[2, 1], strides=[2, 1])
    x = m.node("MaxPool", [layer(x, "three", 24, 32)], "pool_3", kernel_shape=[8, 1], strides=[8, 1])
    x = m.node("Transpose", [m.node("Squeeze", [x], "Squeeze", axes=[2])], "Transpose", perm=[2, 0, 1])
    size = 32
    for name in ("lstm_1", "lstm_2"):
        w = [f.weight(name + "." + p, 2, *dims, scale=0.3) for p, *dims in
             (("W", 4 * hidden, size), ("R", 4 * hidden, hidden), ("B", 8 * hidden))]
        x = m.node("LSTM", [x, *w], name, direction="bidirectional", hidden_size=hidden)
        x = m.node("Transpose", [x], name + "/Transpose", perm=[0, 2, 1, 3])
        x = m.node("Reshape", [x, m.ints(0, 0, -1)], name + "/Reshape")
        size = 2 * hidden
    x = m.node("Transpose", [x], "Transpose_2", perm=[1, 0, 2])
    x = m.node("Add", [m.node("MatMul", [x, f.weight("fc", size, characters)], "fc/MatMul"), f.vector("fc.bias", characters)],
               "fc/Add")
    m.node("Softmax", [x], "Softmax", ["softmax"], axis=2)
    m.save()

    def lstm(x, w, r, b):
        h = c = np.zeros((x.shape[1], hidden))
        out = []
        for row in x @ w.T + b[:4 * hidden] + b[4 * hidden:]:
            i, o, g, n = np.split(row + h @ r.T, 4, -1)
            c = sigmoid(g) * c + sigmoid(i) * np.tanh(n)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        return np.stack(out)

    def compute(feed):
        x = feed["x"].astype("f8")
        for name, kernel in (("one", (2, 2)), ("two", (2, 1)), ("three", (8, 1))):
            x = pooled(np.maximum(norm(conv(x, f.w[name], pad=(1, 1)), name), 0), kernel)
        x = x[:, :, 0].transpose(2, 0, 1)
        for name in ("lstm_1", "lstm_2"):
            w = [f.w[name + "." + p] for p in "WRB"]
            x = np.concatenate([lstm(x, *(a[0] for a in w)), lstm(x[::-1], *(a[1] for a in w))[::-1]], -1)
        return {"softmax": softmax(x.transpose(1, 0, 2) @ f.w["fc"] + f.w["fc.bias"])}

    def runs(out, rng):
        for batch, width in ((1, 40), (3, 24)):
            out({"x": rng.uniform(-1, 1, (batch, 3, 32, width)).astype("f4")})

    return compute, runs


# ---- dynamic codes -------------------------------------------------------

def mobilenet_int8(path):
    """What onnxruntime's dynamic quantization makes of a MobileNetV3: DynamicQuantizeLinear and ConvInteger, also in
    groups, gates of averages and HardSigmoid, and DynamicQuantizeMatMul at the end."""
    f, width, classes = Form(path), 24, 10
    m = f.m
    x = m.input("input", FLOAT, ["batch", 3, 24, 24])
    m.output("output", FLOAT, ["batch", classes])
    steps = []

    def codes(name, *dims):
        w, zero = f.rng.integers(0, 256, dims).astype("u1"), int(f.rng.integers(120, 136))
        scale = np.float32(2 / 128 / math.sqrt(math.prod(dims[1:]) if len(dims) > 2 else dims[0]))
        f.w[name] = (w - float(zero)) * float(scale)
        return (m.constant(name + "_quantized", w, UINT8), m.constant(name + "_scale", scale, FLOAT),
                m.constant(name + "_zero", np.uint8(zero), UINT8))

    def layer(x, name, n_in, n_out, kernel=1, stride=1, groups=1, after=None):
        w, scale, zero = codes(name, n_out, n_in // groups, kernel, kernel)
        parts = [f"{name}/x{i}" for i in range(3)]
        m.node("DynamicQuantizeLinear", [x], name + "/Quantize", parts)
        y = m.node("ConvInteger", [parts[0], w, parts[2], zero], name + "/Conv_quant", kernel_shape=[kernel] * 2,
                   strides=[stride] * 2, pads=[kernel // 2] * 4, group=groups, dilations=[1, 1])
        y = m.node("Mul", [m.node("Cast", [y], name + "/Cast", to=FLOAT), m.node("Mul", [parts[1], scale], name + "/scales")],
                   name + "/Mul")
        bias = f.weight(name + ".bias", 1, n_out, 1, 1, scale=0.1)
        y = m.node("Add", [y, bias], name + "/Add")
        steps.append((name, kernel, stride, groups))
        return m.node(after, [y], f"{name}/{after}", **({"alpha": 1 / 6} if after == "HardSigmoid" else {})) if after else y

    x = layer(x, "stem", 3, 16, 3, 2, after="HardSwish")
    y = layer(layer(x, "expand", 16, width, after="Relu"), "depthwise", width, width, 3, 1, width, "Relu")
    gate = layer(m.node("GlobalAveragePool", [y], "se/Pool"), "reduce", width, 8, after="Relu")
    y = m.node("Mul", [y, layer(gate, "excite", 8, width, after="HardSigmoid")], "se/Mul")
    x = m.node("Add", [x, layer(y, "project", width, 16)], "residual/Add")
    y = m.node("ReduceMean", [layer(x, "last", 16, 48, after="HardSwish")], "ReduceMean", axes=[2, 3], keepdims=1)
    y = m.node("Flatten", [y], "Flatten", axis=1)
    w, scale, zero = codes("classifier", 48, classes)
    m.node("DynamicQuantizeMatMul", [y, w, scale, zero, f.vector("classifier.bias", classes)], "classifier", ["output"], MS)
    m.save()

    def product(x, name):
        kernel, stride, groups = next(s[1:] for s in steps if s[0] == name)
        q, scale = dynamic(x)
        return conv(q, f.w[name], None, (stride,) * 2, (kernel // 2,) * 2, groups) * scale + f.w[name + ".bias"]

    def hard_sigmoid(x):
        return np.clip(x / 6 + 0.5, 0, 1)

    def compute(feed):
        x = product(feed["input"], "stem")
        x = x * hard_sigmoid(x)
        y = np.maximum(product(np.maximum(product(x, "expand"), 0), "depthwise"), 0)
        gate = np.maximum(product(y.mean((2, 3), keepdims=True), "reduce"), 0)
        x = x + product(y * hard_sigmoid(product(gate, "excite")), "project")
        y = product(x, "last")
        q, scale = dynamic((y * hard_sigmoid(y)).mean((2, 3)))
        return {"output": q @ f.w["classifier"] * scale + f.w["classifier.bias"]}

    def runs(out, rng):
        for batch in (1, 3):
            out({"input": rng.standard_normal((batch, 3, 24, 24)).astype("f4")})

    return compute, runs


if __name__ == "__main__":
    write_all([yolo_nms, paddle_rec_lstm, mobilenet_int8])
