"""Reads ONNX files for the tests here: the protobuf messages of a graph, by hand."""
import struct

import numpy as np

TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64}


def fields(body):
    """(number, value) of a message: integers, or bytes."""
    at = 0

    def read():
        nonlocal at
        n = shift = 0
        while True:
            byte = body[at]
            at, n, shift = at + 1, n | (byte & 127) << shift, shift + 7
            if byte < 128:
                return n

    while at < len(body):
        key = read()
        if key & 7 == 0:
            yield key >> 3, read()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or read()
        yield key >> 3, body[at:at + size]
        at += size


def signed(n):
    return n - (1 << 64) if n >> 63 else n


def read_tensor(body):
    name, dims, kind, raw, values = "", [], 1, None, []
    for field, v in fields(body):
        if field == 1:
            dims += [v] if isinstance(v, int) else [n for n in unpack(v)]
        elif field == 2:
            kind = v
        elif field == 8:
            name = v.decode()
        elif field == 9:
            raw = v
        elif field == 4:
            values += list(struct.unpack(f"<{len(v) // 4}f", v))
        elif field in (5, 7):
            values += [signed(v)] if isinstance(v, int) else [signed(n) for n in unpack(v)]
    a = np.array(values, TYPES[kind]) if raw is None else np.frombuffer(raw, TYPES[kind])
    return name, a.reshape(dims)


def unpack(body):
    n = shift = 0
    for byte in body:
        n, shift = n | (byte & 127) << shift, shift + 7
        if byte < 128:
            yield n
            n = shift = 0


def read_model(path):
    """(nodes as (operator, inputs, outputs, attributes), initializers)"""
    graph = next(v for f, v in fields(open(path, "rb").read()) if f == 7)
    nodes, known = [], {}
    for field, body in fields(graph):
        if field == 5:
            name, a = read_tensor(body)
            known[name] = a
        if field == 1:
            op, inputs, outputs, attributes = "", [], [], {}
            for f, v in fields(body):
                if f in (1, 2):
                    (inputs if f == 1 else outputs).append(v.decode())
                elif f == 4:
                    op = v.decode()
                elif f == 5:
                    key, ints, value = "", [], None
                    for g, w in fields(v):
                        if g == 1:
                            key = w.decode()
                        elif g == 3:
                            value = signed(w)
                        elif g == 4:
                            value = w.decode()
                        elif g == 8:
                            ints += [signed(w)] if isinstance(w, int) else [signed(n) for n in unpack(w)]
                    attributes[key] = ints or value
            nodes.append((op, inputs, outputs, attributes))
    return nodes, known
