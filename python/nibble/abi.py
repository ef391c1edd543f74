"""What C offers, for ctypes: the structs and functions of nibble.h, nb_runtime.h and nb_pass.h.

A row of a table is a name, what is returned, and the parameters, a letter each. tests/python compares
the tables with the headers.
"""
import ctypes as c
import glob
import os
from pathlib import Path

LETTERS = {"v": None, "p": c.c_void_p, "s": c.c_char_p, "z": c.c_size_t, "i": c.c_int, "q": c.c_int64,
           "d": c.c_double}

# nibble.h, but for what only C needs.
LIBRARY = """
nibble_version s
nibble_free v p
nibble_diags_create p
nibble_diags_free v p
nibble_diags_count z p
nibble_diags_get i pzp
nibble_diags_text s pz
nibble_diags_clear v p
nibble_graph_load i spp
nibble_graph_from_memory i szsspp
nibble_graph_clone i pp
nibble_graph_free v p
nibble_graph_text i pip
nibble_graph_input_count z p
nibble_graph_output_count z p
nibble_graph_input i pzp
nibble_graph_output i pzp
nibble_graph_view p p
nibble_host p
nibble_run_passes i pspp
nibble_scheme_pipeline i sipp
nibble_run_scheme i pspp
nibble_pass p z
nibble_evaluate i ppzpp
nibble_result_count z p
nibble_result_get i pzp
nibble_result_free v p
nibble_compile i pppp
nibble_compile_file i pspp
nibble_model_open i sppp
nibble_model_free v p
nibble_model_input_count z p
nibble_model_output_count z p
nibble_model_input i pzp
nibble_model_output i pzp
nibble_model_run i ppzpp
nibble_model_loaded p p
nb_session_create i pppp
nb_session_destroy v p
nb_session_set_input i pippp
nb_session_run i pp
nb_session_output p pip
nb_session_length q p
nb_session_reset i pp
nb_session_rewind i pqp
"""

# nb_pass_host: every member, in order. Texts with formats take one argument here, for "%s".
HOST = """
first_op p p
next_op p p
op_name s p
op_node s p
op_text s pp
operand_count z p
operand p pz
result_count z p
result p pz
defining_op p p
use_count z p
user p pz
value_name s p
value_elem i p
value_rank i p
value_dim q pi
value_type s pp
is_const i p
is_quantized i p
attr_int i psp
attr_float i psp
attr_ints i pspp
input_count z p
input p pz
output_count z p
output p pz
attr_text s pps
value_dim_text s ppi
value_quant s p
elem_text s i
elem_named i s
elem_bits i i
symbol s pz
dim i psp
make_symbol s psqq
body_count z p
body_first_op p pz
body_input_count z pz
body_input p pzz
parent_op p p
body_output_count z pz
body_output p pzz
const_data i ppp
make_const p psp
const_floats i ppqqp
const_rest i pp
make_const_by p psppp
make_quant s pp
make_codes p psps
quant i psp
build p ppspzpz
set_operand i ppzp
replace_uses i ppp
remove_op i pp
sweep z p
set_name i pps
move_op i ppp
make_body p pp
body_take p ppss
body_end p pp
body_return i pppz
build_with_bodies p ppspzpzpz
rewrite i ppz
matched p ps
matched_op p p
call p ppspzpz
run i ppppzpp
sample_count z p
sample i pzp
stats i ppp
selected i psp
report v pipss
help v pss
note v pss
report_value v pipss
fact v ppsd
refused v ppssss
is_heard i p
scratch p pz
query p ps
"""


ABI_MAJOR, ABI_MINOR = 1, 0  # NB_PASS_ABI_MAJOR and _MINOR that this was written for


def rows(table):
    for line in table.split("\n"):
        if line:
            name, result, *letters = line.split(" ")
            yield name, LETTERS[result], [LETTERS[letter] for letter in "".join(letters)]


class Array(c.Structure):
    _fields_ = [("elem", c.c_int32), ("rank", c.c_int32), ("dims", c.c_int64 * 8), ("data", c.c_void_p),
                ("scales", c.c_void_p)]


class Sized(c.Structure):
    """A struct that begins with its size."""

    def __init__(self, **members):
        super().__init__(**members)
        self.size = c.sizeof(self)


class Diag(Sized):
    _fields_ = [("size", c.c_uint32), ("level", c.c_int), ("status", c.c_int), ("message", c.c_char_p),
                ("help", c.c_char_p), ("file", c.c_char_p), ("node", c.c_char_p), ("line", c.c_int),
                ("column", c.c_int), ("offset", c.c_int64)]


class Port(Sized):
    _fields_ = [("size", c.c_uint32), ("name", c.c_char_p), ("elem", c.c_int32), ("rank", c.c_int32),
                ("state", c.c_int32), ("shape", c.c_char_p)]


class PassEvent(c.Structure):
    _fields_ = [("size", c.c_uint32), ("index", c.c_size_t), ("name", c.c_char_p), ("result", c.c_int),
                ("seconds", c.c_double)]


AFTER = c.CFUNCTYPE(None, c.c_void_p, c.POINTER(PassEvent))


class PassOptions(Sized):
    _fields_ = [("size", c.c_uint32), ("samples", c.POINTER(Array)), ("n_samples", c.c_size_t),
                ("plugins", c.POINTER(c.c_char_p)), ("in_memory", c.POINTER(c.c_void_p)),
                ("directory", c.c_char_p), ("verify_each", c.c_int), ("check_each", c.c_int),
                ("after", AFTER), ("user", c.c_void_p), ("budget", c.c_char_p)]


class CompileOptions(Sized):
    _fields_ = [("size", c.c_uint32), ("target", c.c_char_p), ("cpu", c.c_char_p), ("threads", c.c_int),
                ("embed_weights", c.c_int), ("emit", c.c_char_p), ("name", c.c_char_p),
                ("link", c.POINTER(c.c_char_p))]


class SessionOptions(c.Structure):
    _fields_ = [("threads", c.c_int), ("capacity", c.c_int64), ("allocate", c.c_void_p),
                ("release", c.c_void_p), ("user", c.c_void_p)]


class PassHost(c.Structure):
    _fields_ = ([("size", c.c_uint32), ("abi_major", c.c_uint32), ("abi_minor", c.c_uint32)] +
                [(name, c.CFUNCTYPE(result, *parameters)) for name, result, parameters in rows(HOST)])


class PassContext(c.Structure):
    _fields_ = [("size", c.c_uint32), ("host", c.POINTER(PassHost)), ("host_data", c.c_void_p),
                ("graph", c.c_void_p), ("options", c.c_void_p), ("user", c.c_void_p)]


class OptionValue(c.Structure):
    _fields_ = [("i", c.c_int64), ("f", c.c_double), ("b", c.c_int), ("s", c.c_char_p), ("given", c.c_int),
                ("reserved", c.c_void_p * 2)]


class Option(c.Structure):
    _fields_ = [("name", c.c_char_p), ("kind", c.c_int), ("fallback", c.c_char_p), ("summary", c.c_char_p),
                ("min", c.c_double), ("max", c.c_double), ("choices", c.c_void_p), ("reserved", c.c_void_p)]


RUN = c.CFUNCTYPE(c.c_int, c.c_void_p)


class Pass(Sized):
    _fields_ = [("size", c.c_uint32), ("name", c.c_char_p), ("summary", c.c_char_p),
                ("options", c.POINTER(Option)), ("run", RUN), ("user", c.c_void_p),
                ("promises", c.c_uint32), ("needs", c.c_uint32)]


class Plugin(Sized):
    _fields_ = [("size", c.c_uint32), ("abi_major", c.c_uint32), ("abi_minor", c.c_uint32),
                ("name", c.c_char_p), ("passes", c.POINTER(c.POINTER(Pass))), ("ops", c.c_void_p)]


class AttrArg(c.Structure):
    _fields_ = [("name", c.c_char_p), ("i", c.c_int64), ("f", c.c_double), ("s", c.c_char_p),
                ("ints", c.POINTER(c.c_int64)), ("dims", c.POINTER(c.c_char_p)), ("count", c.c_size_t),
                ("reserved", c.c_void_p)]


class RewriteRow(Sized):
    _fields_ = [("size", c.c_uint32), ("name", c.c_char_p), ("rule", c.c_char_p), ("where", c.c_void_p),
                ("to", c.c_void_p)]


def find():
    """libnibble's path: $NIBBLE_LIBRARY, or below the prefix that this module was installed in, or
    what the loader finds."""
    if os.environ.get("NIBBLE_LIBRARY"):
        return os.environ["NIBBLE_LIBRARY"]
    above = Path(__file__).resolve().parents
    for pattern in ("lib/libnibble.so.0", "lib64/libnibble.so.0", "lib/*/libnibble.so.0"):
        # PREFIX/share/nibble/python/nibble/abi.py
        found = glob.glob(str(above[4] / pattern)) if len(above) > 4 else []
        if found:
            return found[0]
    return "libnibble.so.0"


def load():
    library = c.CDLL(find())
    for name, result, parameters in rows(LIBRARY):
        function = getattr(library, name)
        function.restype, function.argtypes = result, parameters
    library.nibble_host.restype = c.POINTER(PassHost)
    return library
