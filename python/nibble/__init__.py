"""Nibble for Python: libnibble through ctypes. NumPy arrays go in and come out where there is NumPy.

    import nibble
    graph = nibble.load("model.onnx")
    graph.quantize("w8a8")
    model = graph.compile()
    y = model.run({"x": x})["y"]

Errors are nibble.Error, which has the diagnostics. Passes are functions: see make_pass.
"""
import collections
import ctypes as c

from . import abi
from .arrays import ELEMS, Array, from_c, to_c
from .passes import KEEPS_BITS, KEEPS_NUMBERS, Context, Op, Value, make_pass

__all__ = ["Array", "Context", "Diag", "ELEMS", "Error", "Graph", "KEEPS_BITS", "KEEPS_NUMBERS", "Model", "Op",
           "Port", "Session", "Value", "load", "loads", "make_pass", "open_model", "passes_of", "version"]

_lib = abi.load()
STATUSES = ("ok", "check failed", "usage", "malformed", "unsupported", "limit", "io", "internal")

Port = collections.namedtuple("Port", "name elem shape state")
Port.__doc__ = "An input or output: its type as ELEMS has it, its shape as text, its state's number or None."
Diag = collections.namedtuple("Diag", "level status message help file node line column offset text")
Diag.__doc__ = "What there was to say: level is 'error', 'warning' or 'info', text is what the program prints."


class Error(Exception):
    """status: one of STATUSES; diags: all diagnostics of the call."""

    def __init__(self, status, diags):
        self.status, self.diags = STATUSES[status], diags
        super().__init__("".join(d.text for d in diags if d.level == "error").rstrip() or self.status)


def _text(raw):
    return raw.decode("utf-8", "backslashreplace")


def _encode(text):
    return None if text is None else str(text).encode()


def _strings(items):
    return (c.c_char_p * (len(items) + 1))(*[_encode(item) for item in items], None) if items else None


class _Call:
    """Diagnostics of one call: checks its status, keeps what was said."""

    def __init__(self):
        self.handle = _lib.nibble_diags_create()
        if not self.handle:
            raise MemoryError

    def check(self, status):
        """Ends the call. All diagnostics, or Error."""
        diags = []
        raw = abi.Diag()
        for i in range(_lib.nibble_diags_count(self.handle)):
            _lib.nibble_diags_get(self.handle, i, c.byref(raw))
            level = ("error", "warning", "info")[raw.level]
            diags.append(Diag(level, STATUSES[raw.status], _text(raw.message), _text(raw.help), _text(raw.file),
                              _text(raw.node), raw.line, raw.column, raw.offset,
                              _text(_lib.nibble_diags_text(self.handle, i))))
        _lib.nibble_diags_free(self.handle)
        if status:
            raise Error(status, diags)
        return diags


def version():
    return _text(_lib.nibble_version())


def _ports(handle, count, get):
    out = []
    raw = abi.Port()
    for i in range(count(handle)):
        get(handle, i, c.byref(raw))
        out.append(Port(_text(raw.name), ELEMS.get(raw.elem, "?"), _text(raw.shape),
                        raw.state if raw.state >= 0 else None))
    return out


def _inputs(ports, values, optional):
    """A C array of inputs, and what must live as long."""
    unknown = set(values) - {port.name for port in ports}
    if unknown:
        raise KeyError(f"no input {sorted(unknown)[0]!r}; inputs are {', '.join(p.name for p in ports)}")
    arrays, keep = (abi.Array * (len(ports) + 1))(), []
    for i, port in enumerate(ports):
        if port.name in values:
            to_c(values[port.name], port.elem, arrays[i], keep)
        elif not optional or port.state is None:
            raise KeyError(f"input {port.name!r} is not given")
    return arrays, keep


def _results(handle, ports):
    raw, out = abi.Array(), {}
    for i, port in enumerate(ports):
        _lib.nibble_result_get(handle, i, c.byref(raw))
        out[port.name] = from_c(raw)
    _lib.nibble_result_free(handle)
    return out


# ---- graphs -----------------------------------------------------------------------------------------


class Graph:
    """A graph: from load() and loads()."""

    def __init__(self, handle):
        self._handle = c.c_void_p(handle)
        self._keep = []  # plug-ins, which must outlive it

    def __del__(self):
        if getattr(self, "_handle", None):
            _lib.nibble_graph_free(self._handle)

    def clone(self):
        out = c.c_void_p()
        if _lib.nibble_graph_clone(self._handle, c.byref(out)):
            raise MemoryError
        copy = Graph(out.value)
        copy._keep = list(self._keep)
        return copy

    @property
    def inputs(self):
        return _ports(self._handle, _lib.nibble_graph_input_count, _lib.nibble_graph_input)

    @property
    def outputs(self):
        return _ports(self._handle, _lib.nibble_graph_output_count, _lib.nibble_graph_output)

    def text(self, elide=False):
        """As .nir; elide: large constants by their hash only."""
        out = c.c_void_p()
        if _lib.nibble_graph_text(self._handle, elide, c.byref(out)):
            raise MemoryError
        text = c.string_at(out.value).decode()
        _lib.nibble_free(out)
        return text

    def ops(self):
        """Its operations in order. They are void once the graph changed."""
        host = _lib.nibble_host().contents
        op = host.first_op(_lib.nibble_graph_view(self._handle))
        while op:
            yield Op(host, op, self)
            op = host.next_op(op)

    def run_passes(self, pipeline, passes=(), plugins=(), samples=(), directory=None, verify=False, check=False,
                   after=None):
        """Runs a pipeline, or a recipe; returns what passes had to say.

        passes: of make_pass; plugins: files; samples: for calibration, a dict of all inputs each;
        after(name, result, seconds): called after each pass."""
        return self._run(_lib.nibble_run_passes, pipeline, passes, plugins, samples, directory, verify, check, after)

    def quantize(self, scheme, samples=(), after=None, budget=None):
        """Runs the pipeline of a scheme: w8a16, w8a8, w4a16, w4a8, or f32.

        budget: "4.7bpw" or "12ms", with samples: bits for each layer by what it loses."""
        return self._run(_lib.nibble_run_scheme, scheme, (), (), samples, None, False, False, after, budget)

    def _run(self, function, text, passes, plugins, samples, directory, verify, check, after, budget=None):
        options = abi.PassOptions(verify_each=verify, check_each=check, directory=_encode(directory),
                                  budget=_encode(budget))
        ports, keep, failed = self.inputs, [], []
        if samples:
            options.samples = arrays = (abi.Array * (len(samples) * len(ports)))()
            options.n_samples = len(samples)
            for i, sample in enumerate(samples):
                some, kept = _inputs(ports, sample, False)
                keep.append(kept)
                for k in range(len(ports)):
                    arrays[i * len(ports) + k] = some[k]
        if plugins:
            options.plugins = _strings(plugins)
        if passes:
            made = [p.plugin(failed) for p in passes]
            self._keep.append(made)
            options.in_memory = (c.c_void_p * (len(made) + 1))(*[c.addressof(m) for m in made], None)
        if after:
            def watch(_, event):
                event = event.contents
                try:
                    after(_text(event.name), ("failed", "changed", "unchanged")[event.result], event.seconds)
                except BaseException as e:  # noqa: B902: it must not go through C
                    failed.append(e)
            options.after = abi.AFTER(watch)
        call = _Call()
        status = function(self._handle, _encode(text), c.byref(options), call.handle)
        try:
            diags = call.check(status)
        except Error as error:
            if failed:
                raise failed[0] from error
            raise
        if failed:
            raise failed[0]
        return diags

    def evaluate(self, inputs):
        """Outputs by name, by the reference evaluator: slow, and what compiled code gives to the bit."""
        arrays, keep = _inputs(self.inputs, inputs, False)
        out, call = c.c_void_p(), _Call()
        call.check(_lib.nibble_evaluate(self._handle, arrays, len(arrays) - 1, call.handle, c.byref(out)))
        del keep
        return _results(out, self.outputs)

    def compile(self, cpu=None, threads=0):
        """A Model in memory."""
        options = abi.CompileOptions(cpu=_encode(cpu), threads=threads)
        out, call = c.c_void_p(), _Call()
        call.check(_lib.nibble_compile(self._handle, c.byref(options), call.handle, c.byref(out)))
        return Model(out.value)

    def compile_file(self, path, target=None, cpu=None, embed_weights=False, emit=None, name=None, link=()):
        """Writes .so, .o, .s, .ll or .nir, as `nibble compile -o path` does."""
        options = abi.CompileOptions(target=_encode(target), cpu=_encode(cpu), embed_weights=embed_weights,
                                     emit=_encode(emit), name=_encode(name))
        options.link = _strings(link)
        call = _Call()
        return call.check(_lib.nibble_compile_file(self._handle, _encode(path), c.byref(options), call.handle))


def load(path):
    """Reads .onnx or .nir."""
    out, call = c.c_void_p(), _Call()
    call.check(_lib.nibble_graph_load(_encode(path), call.handle, c.byref(out)))
    return Graph(out.value)


def loads(data, name="memory", directory=None):
    """The same of bytes, or of .nir text; files of constants are looked for in `directory`."""
    data = data.encode() if isinstance(data, str) else bytes(data)
    out, call = c.c_void_p(), _Call()
    call.check(_lib.nibble_graph_from_memory(data, len(data), _encode(name), _encode(directory), call.handle,
                                             c.byref(out)))
    return Graph(out.value)


def passes_of(scheme, calibrated=False):
    """The pipeline that a scheme stands for."""
    out, call = c.c_void_p(), _Call()
    call.check(_lib.nibble_scheme_pipeline(_encode(scheme), calibrated, call.handle, c.byref(out)))
    text = c.string_at(out.value).decode()
    _lib.nibble_free(out)
    return text


# ---- models -----------------------------------------------------------------------------------------


class Model:
    """A compiled model: from Graph.compile() and open_model()."""

    def __init__(self, handle):
        self._handle = c.c_void_p(handle)
        self._sessions = set()  # of _Handles
        self.inputs = _ports(self._handle, _lib.nibble_model_input_count, _lib.nibble_model_input)
        self.outputs = _ports(self._handle, _lib.nibble_model_output_count, _lib.nibble_model_output)

    def __del__(self):
        # Of what is collected together, finalizers run in any order.
        for handle in getattr(self, "_sessions", ()):
            _lib.nb_session_destroy(handle.pop())
        if getattr(self, "_handle", None):
            _lib.nibble_model_free(self._handle)

    def run(self, inputs):
        """Outputs by name, of a run that begins with empty states; those need not be given."""
        arrays, keep = _inputs(self.inputs, inputs, True)
        out, call = c.c_void_p(), _Call()
        call.check(_lib.nibble_model_run(self._handle, arrays, len(arrays) - 1, call.handle, c.byref(out)))
        del keep
        return _results(out, self.outputs)

    def session(self, threads=0, capacity=0):
        """Runs that keep their states."""
        return Session(self, threads, capacity)


class _Handles(list):
    """A session's handle while that lives, for the session and its model."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Session:
    """Keeps states from run to run. It belongs to one thread at a time."""

    def __init__(self, model, threads, capacity):
        self._model, self._handle, self._error = model, c.c_void_p(), c.create_string_buffer(256)
        self._owned = _Handles()
        options = abi.SessionOptions(threads=threads, capacity=capacity)
        self._check(_lib.nb_session_create(_lib.nibble_model_loaded(model._handle), c.byref(options),
                                           c.byref(self._handle), self._error))
        self._owned.append(self._handle)
        model._sessions.add(self._owned)

    def __del__(self):
        if getattr(self, "_owned", None):
            self._model._sessions.discard(self._owned)
            _lib.nb_session_destroy(self._owned.pop())

    def _check(self, status):
        if status:
            text = _text(self._error.value)
            raise Error(1, [Diag("error", "check failed", text, "", "", "", 0, 0, -1, text)])

    def run(self, inputs):
        """Outputs by name, but for states, which stay in the session."""
        arrays, keep = _inputs(self._model.inputs, inputs, True)
        for i, port in enumerate(self._model.inputs):
            if port.name in inputs:
                self._check(_lib.nb_session_set_input(self._handle, i, arrays[i].data, arrays[i].dims, self._error))
        self._check(_lib.nb_session_run(self._handle, self._error))
        del keep
        out, elem_of = {}, {name: number for number, name in ELEMS.items()}
        for i, port in enumerate(self._model.outputs):
            if port.state is None:
                raw = abi.Array(elem=elem_of[port.elem], rank=port.shape.count(",") + (port.shape != "[]"))
                raw.data = _lib.nb_session_output(self._handle, i, raw.dims)
                out[port.name] = from_c(raw)
        return out

    def __len__(self):
        """Entries that appended states hold."""
        return _lib.nb_session_length(self._handle)

    def reset(self):
        self._check(_lib.nb_session_reset(self._handle, self._error))

    def rewind(self, length):
        """Goes back to so many entries."""
        self._check(_lib.nb_session_rewind(self._handle, length, self._error))


def open_model(path, threads=0):
    """Opens a compiled .so, whose code will run."""
    options = abi.CompileOptions(threads=threads)
    out, call = c.c_void_p(), _Call()
    call.check(_lib.nibble_model_open(_encode(path), c.byref(options), call.handle, c.byref(out)))
    return Model(out.value)
