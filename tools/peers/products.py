"""Matrix products of the peers of tools/bench: what each system is asked to do.

A product of M rows by a weight of K by N.  For M = 1 a program that reads its weights from memory
each time is wanted, not one that finds them in a cache: there are as many weights as fill POOL.
"""
import math
import os

from onnx_wire import FLOAT, INT8, UINT8, Model
from turns import Driver

MS = "com.microsoft"


def pool():
    """Bytes of weights to go through, as `nibble bench --matmul` does: three times the largest cache,
    but 256 MB at least and 1 GB at most."""
    largest = 0
    for i in range(8):
        try:
            with open(f"/sys/devices/system/cpu/cpu0/cache/index{i}/size", encoding="ascii") as f:
                text = f.read().strip()
        except OSError:
            break
        largest = max(largest, int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}[text[-1]])
    return min(1 << 30, max(256 << 20, 3 * largest))


def copies(m, weight_bytes):
    return max(2, math.ceil(pool() / weight_bytes)) if m == 1 else 1


def _uniform(rng, n):
    return (rng.random(n, "f4") + 0.5) * 0.01


def _raw(rng, n):
    return bytearray(rng.bytes(n))


def _model(path, k, n, count, product, domains=(("", 17), (MS, 1))):
    model = Model(path, True, domains)
    x = model.input("x", FLOAT, ["rows", k])
    for i in range(count):
        y = model.output(f"y{i}", FLOAT, ["rows", n])
        product(model, x, y, i)
    model.save()


def ort_nbits(path, k, n, bits, group, accuracy, count):
    """MatMulNBits: `bits` bits a weight, a scale for `group` of them; accuracy 4 allows 8-bit
    activations, 0 keeps them in float."""
    blocks = k // group

    def product(model, x, y, i):
        w = model.weight(f"w{i}", UINT8, [n, blocks, group * bits // 8], _raw)
        s = model.weight(f"s{i}", FLOAT, [n * blocks], _uniform)
        model.node("MatMulNBits", [x, w, s], f"product{i}", [y], MS, K=k, N=n, bits=bits,
                   block_size=group, accuracy_level=accuracy)

    _model(path, k, n, count, product)


def ort_dynamic(path, k, n, count):
    """DynamicQuantizeMatMul: 8-bit weights and activations, what onnxruntime makes of
    DynamicQuantizeLinear, MatMulInteger, Cast and Mul."""

    def product(model, x, y, i):
        w = model.weight(f"w{i}", INT8, [k, n], lambda rng, c: rng.integers(-127, 128, c, "i1"))
        s = model.constant(f"s{i}", [0.01] * n, FLOAT)
        model.node("DynamicQuantizeMatMul", [x, w, s], f"product{i}", [y], MS)

    _model(path, k, n, count, product)


def ort_float(path, k, n, count):
    def product(model, x, y, i):
        model.node("MatMul", [x, model.normal(f"w{i}", [k, n], 0.01)], f"product{i}", [y])

    _model(path, k, n, count, product)


class Product:
    """A contender: its name, what its numbers are, the bytes of its weight, Nibble's counterpart."""

    def __init__(self, system, name, numbers, weight_bytes, against, start):
        self.system, self.name, self.numbers, self.bytes = system, name, numbers, weight_bytes
        self.against, self.start = against, start


def contenders(peers, case, threads, work):
    """All products of the peers that were installed."""
    m, k, n = case
    out = []

    def add(system, name, numbers, weight_bytes, against, start):
        out.append(Product(system, f"{system} {name}", numbers, weight_bytes, against, start))

    def ort(make, label, *options):
        path = os.path.join(work, f"{label}-{k}-{n}-{min(m, 2)}.onnx")

        def start(count):
            if not os.path.exists(path):
                make(path, k, n, *options, count)
            return Driver([*peers["ort"], "matmul", path, threads, m], threads)
        return start

    if "ort" in peers:
        for bits in (4, 8):
            for group in (32, 128):
                size = k * n * bits // 8 + 4 * n * k // group
                for accuracy, act in ((4, "a8"), (0, "a16")):
                    add("onnxruntime", f"MatMulNBits {bits} bits g{group} accuracy {accuracy}",
                        f"w{bits}{act if accuracy else 'a32'} g{group}", size,
                        (f"w{bits}{act}", group),
                        ort(ort_nbits, f"nbits{bits}-{group}-{accuracy}", bits, group, accuracy))
        add("onnxruntime", "DynamicQuantizeMatMul", "w8a8 channel", k * n, ("w8a8", 0),
            ort(ort_dynamic, "dynamic"))
        add("onnxruntime", "MatMul f32", "f32", 4 * k * n, None, ort(ort_float, "float"))
    if "llama" in peers:
        for name, kind, bits, numbers, against in (
                ("Q4_0", 2, 4.5, "w4a8 g32", ("w4a8", 32)),
                ("Q4_K", 12, 4.5, "w4a8 g32", ("w4a8", 32)),
                ("Q8_0", 8, 8.5, "w8a8 g32", ("w8a8", 32))):
            add("llama.cpp", name, numbers, int(k * n * bits / 8), against,
                lambda count, kind=kind: Driver([*peers["llama"], "matmul", kind, m, k, n, count,
                                                 threads], threads))
    if "dnnl" in peers:
        for kind, numbers, size, against in (("s8", "w8a8 channel", 1, ("w8a8", 0)),
                                             ("bf16", "bf16", 2, None), ("f32", "f32", 4, None)):
            add("oneDNN", kind, numbers, size * k * n, against,
                lambda count, kind=kind: Driver([*peers["dnnl"], kind, m, k, n, count], threads))
    return out
