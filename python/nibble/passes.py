"""Passes in Python, through the table that passes in C have (nb_pass.h)."""
import ctypes as c

from . import abi
from .arrays import ELEMS, from_c, to_c

KEEPS_BITS, KEEPS_NUMBERS = 1, 2
LEVELS = {"error": 0, "warning": 1, "info": 2}


class _Handle:
    """Something of a graph, while that lives and is not changed by others."""

    def __init__(self, host, handle, owner):
        self.host, self.handle, self.owner = host, handle, owner

    def __eq__(self, other):
        return isinstance(other, _Handle) and self.handle == other.handle

    def __hash__(self):
        return hash(self.handle)


class Value(_Handle):
    """A tensor: an input, a constant, or a result."""

    @property
    def name(self):
        return self.host.value_name(self.handle).decode("utf-8", "backslashreplace")

    @property
    def elem(self):
        return ELEMS.get(self.host.value_elem(self.handle), "?")

    @property
    def shape(self):
        """Sizes; None where they are not constant."""
        dims = (self.host.value_dim(self.handle, i) for i in range(self.host.value_rank(self.handle)))
        return tuple(None if d < 0 else d for d in dims)

    @property
    def is_const(self):
        return bool(self.host.is_const(self.handle))

    @property
    def is_quantized(self):
        return bool(self.host.is_quantized(self.handle))

    @property
    def op(self):
        """The operation that makes it, or None."""
        handle = self.host.defining_op(self.handle)
        return Op(self.host, handle, self.owner) if handle else None

    @property
    def users(self):
        return [Op(self.host, self.host.user(self.handle, i), self.owner)
                for i in range(self.host.use_count(self.handle))]

    def __repr__(self):
        return f"<{'@' if self.is_const else '%'}{self.name}: {self.elem}{list(self.shape)}>"


class Op(_Handle):
    """An operation."""

    @property
    def kind(self):
        return self.host.op_name(self.handle).decode()

    @property
    def node(self):
        """The ONNX node it came from, or ""."""
        return self.host.op_node(self.handle).decode("utf-8", "backslashreplace")

    @property
    def operands(self):
        """Values; None where an optional one is not given."""
        handles = (self.host.operand(self.handle, i) for i in range(self.host.operand_count(self.handle)))
        return [Value(self.host, h, self.owner) if h else None for h in handles]

    @property
    def results(self):
        return [Value(self.host, self.host.result(self.handle, i), self.owner)
                for i in range(self.host.result_count(self.handle))]

    def attr(self, name):
        """A number, a list of whole numbers, or None."""
        i, d, ints, n = c.c_int64(), c.c_double(), c.POINTER(c.c_int64)(), c.c_size_t()
        key = name.encode()
        if self.host.attr_int(self.handle, key, c.addressof(i)):
            return i.value
        if self.host.attr_float(self.handle, key, c.addressof(d)):
            return d.value
        if self.host.attr_ints(self.handle, key, c.addressof(ints), c.addressof(n)):
            return ints[:n.value]
        return None

    def __repr__(self):
        return f"<{self.kind} {self.node!r}>"


class Refused(Exception):
    """The host refused a call, and has said why."""


class Context:
    """What a pass gets: the graph, and ways to change it. A call that the host refuses ends the pass."""

    def __init__(self, address, options):
        self._ctx = address
        raw = abi.PassContext.from_address(address)
        self._host, self._graph = raw.host.contents, raw.graph
        self.options = options

    def _made(self, handle):
        if not handle:
            raise Refused
        return Value(self._host, handle, self)

    def _done(self, answer):
        if not answer:
            raise Refused

    def ops(self):
        """In order; the one that was given last may be removed."""
        op = self._host.first_op(self._graph)
        while op:
            following = self._host.next_op(op)
            yield Op(self._host, op, self)
            op = following

    @property
    def inputs(self):
        return [Value(self._host, self._host.input(self._graph, i), self)
                for i in range(self._host.input_count(self._graph))]

    @property
    def outputs(self):
        return [Value(self._host, self._host.output(self._graph, i), self)
                for i in range(self._host.output_count(self._graph))]

    def text(self, op):
        """Its line of .nir."""
        return self._host.op_text(self._ctx, op.handle).decode()

    def data(self, value):
        """A constant's, as an array; codes as they are stored."""
        raw = abi.Array()
        self._done(self._host.const_data(self._ctx, value.handle, c.addressof(raw)))
        return from_c(raw)

    def const(self, name, array, elem="f32"):
        """A new constant; lists become arrays of `elem`."""
        raw, keep = abi.Array(), []
        to_c(array, elem, raw, keep)
        return self._made(self._host.make_const(self._ctx, name.encode(), c.addressof(raw)))

    def build(self, before, kind, *operands, **attributes):
        """A new operation in front of another; its first result. An attribute is a number, a text
        (element types, quantizations), a list of whole numbers, or one of texts (dimensions)."""
        handles = (c.c_void_p * (len(operands) + 1))(*[v.handle if v else None for v in operands], None)
        args, keep = (abi.AttrArg * (len(attributes) + 1))(), []
        for arg, (name, value) in zip(args, attributes.items()):
            arg.name = name.encode()
            if isinstance(value, str):
                arg.s = value.encode()
            elif isinstance(value, (int, float)):
                arg.i, arg.f = int(value), float(value)
            elif value and isinstance(value[0], str):
                keep.append((c.c_char_p * len(value))(*[v.encode() for v in value]))
                arg.dims, arg.count = keep[-1], len(value)
            else:
                keep.append((c.c_int64 * (len(value) + 1))(*value))
                arg.ints, arg.count = keep[-1], len(value)
        return self._made(self._host.build(self._ctx, before.handle, kind.encode(), c.addressof(handles),
                                           len(operands), c.addressof(args), len(attributes)))

    def replace(self, value, by):
        """All uses of a value."""
        self._done(self._host.replace_uses(self._ctx, value.handle, by.handle))

    def remove(self, op):
        """An operation whose results nobody uses."""
        self._done(self._host.remove_op(self._ctx, op.handle))

    def sweep(self):
        """Removes what nothing uses; how many."""
        return self._host.sweep(self._ctx)

    def rewrite(self, **rules):
        """Applies rules, name="mul(x, 1) -> x", until none fires; whether one did. In names, '_' is '-'."""
        rows = (abi.RewriteRow * len(rules))()
        for row, (name, rule) in zip(rows, rules.items()):
            row.size, row.name, row.rule = c.sizeof(row), name.replace("_", "-").encode(), rule.encode()
        changed = self._host.rewrite(self._ctx, c.addressof(rows), len(rules))
        if changed < 0:
            raise Refused
        return changed > 0

    def report(self, level, text, op=None, help=None):
        """level: error, which makes the pass fail, warning or info."""
        self._host.report(self._ctx, LEVELS[level], op.handle if op else None, b"%s", text.encode())
        if help:
            self._host.help(self._ctx, b"%s", help.encode())


class Pass:
    """A pass: from make_pass, for the passes= of Graph.run_passes."""

    def __init__(self, function, name, summary, options, promises):
        self.function, self.name, self.summary, self.defaults = function, name, summary, options
        self.promises = promises

    def __call__(self, ctx):
        return self.function(ctx)

    def _options_c(self):
        out = (abi.Option * (len(self.defaults) + 1))()
        for option, (name, default) in zip(out, self.defaults.items()):
            kind = 2 if isinstance(default, bool) else 0 if isinstance(default, int) else 1 \
                if isinstance(default, float) else 3
            fallback = str(default).lower() if kind == 2 else str(default)
            option.name, option.kind = name.replace("_", "-").encode(), kind
            option.fallback, option.summary = fallback.encode(), name.encode()
        return out

    def _values(self, address):
        raw = (abi.OptionValue * len(self.defaults)).from_address(address) if self.defaults else []
        return {name: bool(v.b) if isinstance(default, bool) else v.i if isinstance(default, int)
                else v.f if isinstance(default, float) else (v.s or b"").decode()
                for v, (name, default) in zip(raw, self.defaults.items())}

    def plugin(self, failed):
        """An abi.Plugin with this pass alone; `failed` gets exceptions."""
        def run(address):
            try:
                raw = abi.PassContext.from_address(address)
                return 1 if self.function(Context(address, self._values(raw.options))) else 2
            except Refused:
                return 0
            except BaseException as e:  # noqa: B902: it must not go through C
                failed.append(e)
                raw.host.contents.report(address, 0, None, b"%s", f"{type(e).__name__}: {e}".encode())
                return 0

        pass_ = abi.Pass(name=self.name.encode(), summary=self.summary.encode(), options=self._options_c(),
                         run=abi.RUN(run), promises=self.promises)
        plugin = abi.Plugin(abi_major=abi.ABI_MAJOR, abi_minor=abi.ABI_MINOR, name=b"python")
        plugin.passes = (c.POINTER(abi.Pass) * 2)(c.pointer(pass_), None)
        plugin._keep = pass_
        return plugin


def make_pass(name, summary="", promises=0, **options):
    """Makes a pass of a function, which gets a Context and answers whether it changed the graph:

        @nibble.make_pass("fold-ones", "x * 1 becomes x", promises=nibble.KEEPS_BITS)
        def fold_ones(p):
            return p.rewrite(mul_one="mul(x, 1) -> x")

    Options are keyword arguments with their defaults, of type bool, int, float or str; p.options has
    their values."""
    def decorate(function):
        return Pass(function, name, summary or (function.__doc__ or name).split("\n")[0], options, promises)

    return decorate
