"""Arrays between Python and C: NumPy's where there is NumPy, else Array or nested lists."""
import ctypes as c
import struct

try:
    import numpy
except ImportError:
    numpy = None

# ONNX data types, by the names that .nir has for them.
ELEMS = {1: "f32", 2: "u8", 3: "i8", 4: "u16", 5: "i16", 6: "i32", 7: "i64", 9: "bool", 10: "f16", 11: "f64",
         12: "u32", 13: "u64", 16: "bf16"}
NUMBERS = {name: number for number, name in ELEMS.items()}
# For struct; bf16, which neither struct nor NumPy has, as its bits.
FORMATS = {"f32": "f", "u8": "B", "i8": "b", "u16": "H", "i16": "h", "i32": "i", "i64": "q", "bool": "?", "f16": "e",
           "f64": "d", "u32": "I", "u64": "Q", "bf16": "H"}
DTYPES = {"f32": "float32", "u8": "uint8", "i8": "int8", "u16": "uint16", "i16": "int16", "i32": "int32",
          "i64": "int64", "bool": "bool", "f16": "float16", "f64": "float64", "u32": "uint32", "u64": "uint64"}


class Array:
    """elem: a name of ELEMS; shape; data: bytes, row-major."""

    def __init__(self, elem, shape, data):
        self.elem, self.shape, self.data = elem, tuple(shape), bytes(data)

    def tolist(self):
        """Nested lists, as NumPy's arrays have them."""
        form = FORMATS[self.elem]
        flat = list(struct.unpack(f"<{len(self.data) // struct.calcsize('<' + form)}{form}", self.data))
        if self.elem == "bf16":
            flat = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in flat]
        for size in reversed(self.shape[1:]):
            flat = [flat[i * size:(i + 1) * size] for i in range(len(flat) // size)] if size else []
        return flat if self.shape else flat[0]


def _of_lists(value, elem):
    shape, flat = [], value
    while isinstance(flat, (list, tuple)):
        shape.append(len(flat))
        flat = flat[0] if flat else None
    flat = [value]
    for size in shape:
        if any(not isinstance(row, (list, tuple)) or len(row) != size for row in flat):
            raise ValueError("lists of different lengths are no array")
        flat = [entry for row in flat for entry in row]
    return Array(elem, shape, struct.pack(f"<{len(flat)}{FORMATS[elem]}", *flat))


def to_c(value, elem, out, keep):
    """Fills an abi.Array; `keep` gets what must live as long. Lists become arrays of `elem`."""
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        value = numpy.ascontiguousarray(value).reshape(numpy.shape(value))
        name = next((e for e, dtype in DTYPES.items() if dtype == value.dtype.name), None)
        if name is None:
            raise TypeError(f"an array of {value.dtype} has no type here")
        shape, address = value.shape, value.ctypes.data
    else:
        if not isinstance(value, Array):
            value = _of_lists(value, elem)
        name, shape = value.elem, value.shape
        value = c.create_string_buffer(value.data, len(value.data) or 1)
        address = c.addressof(value)
    if len(shape) > 8:
        raise ValueError(f"an array of rank {len(shape)}; 8 is the most")
    keep.append(value)
    out.elem, out.rank, out.data = NUMBERS[name], len(shape), address
    for i, size in enumerate(shape):
        out.dims[i] = size


def from_c(raw):
    """A copy."""
    elem, shape = ELEMS.get(raw.elem), tuple(raw.dims[:raw.rank])
    if elem is None:
        raise TypeError(f"element type {raw.elem} has no type in Python")
    count = 1
    for size in shape:
        count *= size
    size = count * struct.calcsize("<" + FORMATS[elem])
    data = c.string_at(raw.data, size) if size else b""
    if numpy is None:
        return Array(elem, shape, data)
    if elem == "bf16":
        bits = numpy.frombuffer(data, "uint16").astype("uint32") << 16
        return bits.view("float32").reshape(shape)
    return numpy.frombuffer(bytearray(data), DTYPES[elem]).reshape(shape)
