"""What tools/quality measures: schemes, methods, the stages of the ablation, models, as tables.

A method is passes between `raise` and `fuse-dequant`, or options of nibble; a stage is what one step
adds to a pipeline.  In both $bits, $group and so on are fields of the scheme.
"""
import fnmatch
import string
from typing import NamedTuple, Optional

# ---- schemes -------------------------------------------------------------


class Scheme(NamedTuple):
    base: str        # as `nibble --scheme` calls it
    bits: int
    group: int       # 0: a scale for each output channel
    act: str         # options of insert-qdq
    smooth: str = ""  # the activations, as smooth-fold calls them
    data: str = ""   # passes that the scheme itself needs calibration for
    static: str = ""  # what makes nibble's scheme this one


SCHEMES = {
    "w8a16": Scheme("w8a16", 8, 0, "act=i16", "none"),
    "w8a8": Scheme("w8a8", 8, 0, "act=i8", "i8"),
    "w8a8 static": Scheme("w8a8", 8, 0, "act=i8, mode=static", "i8-static", "calibrate, ", "--act static"),
    "w4a16": Scheme("w4a16", 4, 0, "act=i16", "none"),
    "w4a16 g128": Scheme("w4a16", 4, 128, "act=i16", "none"),
    "w4a16 g32": Scheme("w4a16", 4, 32, "act=i16", "none"),
    "w4a8 g32": Scheme("w4a8", 4, 32, "act=i8", "i8"),
    "formats": Scheme("", 0, 0, ""),  # of weights alone, activations in float
    "caches": Scheme("", 0, 0, ""),   # of keys and values alone, all else in float
}

FORMATS, CACHES = ("formats",), ("caches",)
ALL = tuple(n for n in SCHEMES if n not in FORMATS + CACHES)
STATIC = ("w8a8 static",)
DYNAMIC = tuple(n for n in ALL if n not in STATIC)
EIGHT_BITS = tuple(n for n in ALL if n.startswith("w8"))
FOUR_BITS = tuple(n for n in ALL if n.startswith("w4"))
BYTES = tuple(n for n in ALL if "a8" in n)  # activations

FRONT, BACK = "simplify, raise, simplify, ", ", fuse-dequant, simplify, plan-memory"


def by_passes(text):
    return ["--passes", FRONT + text + BACK]


# ---- methods -------------------------------------------------------------

class Method(NamedTuple):
    name: str
    schemes: tuple     # for which of SCHEMES
    calibrated: bool   # needs data; where a scheme does anyway, so does each of its methods
    text: str          # passes before fuse-dequant, or options of nibble; $ a field of Scheme


ROUNDING = "round to nearest"
ROUND = "quantize-weights{bits=$bits, group=$group, embedding=0"
SOLVED, ZEROS = ROUND + ", search, method=gptq", ROUND + ", search, asymmetric, method=gptq"
FORMAT = "quantize-weights{embedding=0, format="
METHODS = (
    Method(ROUNDING, ALL, False, "${data}" + ROUND + "}, insert-qdq{$act}"),
    Method("search", ALL, False, "${data}" + ROUND + ", search}, insert-qdq{$act}"),
    Method("zero points, search", FOUR_BITS, False, ROUND + ", search, asymmetric}, insert-qdq{$act}"),
    Method("both ends", FOUR_BITS, False, ROUND + ", asymmetric, search-ends}, insert-qdq{$act}"),
    Method("all codes, search", FOUR_BITS, False, ROUND + ", range=full, search}, insert-qdq{$act}"),
    Method("HQQ", FOUR_BITS, False, ROUND + ", asymmetric, method=hqq}, insert-qdq{$act}"),
    Method("AWQ", FOUR_BITS, True,
           "smooth-fold{method=awq, bits=$bits, group=$group, asymmetric, act=none}, " + ROUND +
           ", asymmetric, search, importance=inputs}, insert-qdq{$act}"),
    Method("OmniQuant", FOUR_BITS, True,
           "smooth-fold{method=omniquant, bits=$bits, group=$group, asymmetric, act=none}, " + ROUND +
           ", asymmetric, search-ends, importance=inputs}, insert-qdq{$act}"),
    Method("GPTQ", DYNAMIC, True, SOLVED + ", correct=0, refine=0}, insert-qdq{$act}"),
    Method("GPTQ, refined, corrected", DYNAMIC, True, SOLVED + "}, insert-qdq{$act}"),
    Method("the same, zero points", FOUR_BITS, True, ZEROS + "}, insert-qdq{$act}"),
    Method("the same, 1.5 % of inputs exact", FOUR_BITS, True, ZEROS + ", keep=0.015}, insert-qdq{$act}"),
    Method("preset", DYNAMIC, False, "--scheme $base --group $group"),
    Method("preset with data", ALL, True, "--scheme $base --group $group $static"),
    Method("own text", DYNAMIC, False, "--scheme $base --group $group --calib self"),
    Method("Q8_0", FORMATS, False, FORMAT + "q8_0}"),
    Method("Q6_K", FORMATS, False, FORMAT + "q6_k}"),
    Method("Q5_K, head Q6_K", FORMATS, False, FORMAT + "q5_k, head-format=q6_k}"),
    Method("Q4_K, head Q6_K", FORMATS, False, FORMAT + "q4_k, head-format=q6_k}"),
    # The mix that llama.cpp calls so, for decoders of less than 8 layers.
    Method("Q4_K_S", FORMATS, False, FORMAT + 'q4_k, head-format=q6_k, skip="*v_proj*"}, ' + FORMAT + "q5_k}"),
    Method("Q4_0, head Q6_K", FORMATS, False, FORMAT + "q4_0, head-format=q6_k}"),
    Method("NF4 g64", FORMATS, False, FORMAT + "nf4, group=64}"),
    Method("NF4 g64, double", FORMATS, False, FORMAT + "nf4, group=64, double}"),
    Method("MXFP4, floor", FORMATS, False, FORMAT + "mxfp4, exponent=floor}"),
    Method("MXFP4", FORMATS, False, FORMAT + "mxfp4}"),
    Method("NVFP4", FORMATS, False, FORMAT + "nvfp4}"),
    Method("f16", CACHES, False, "--scheme f32 --kv f16"),
    Method("i8", CACHES, False, "--scheme f32 --kv i8"),
    Method("i8 with data", CACHES, True, "--scheme f32 --kv i8"),
    Method("i4", CACHES, False, "--scheme f32 --kv i4"),
    Method("i4 with data", CACHES, True, "--scheme f32 --kv i4"),
)

# Bits per weight, where llama.cpp's mixes are and between them, and the scheme that has layers of so many.
BUDGETS = (("3.5", "w4a16"), ("4", "w4a16"), ("4.66", "w4a16"), ("4.7", "w4a16"), ("4.94", "w4a16"),
           ("6.56", "w4a16"), ("8.5", "w8a16"))
PEER, MIXES = "llama.cpp", ("Q8_0", "Q6_K", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0")


# ---- stages --------------------------------------------------------------

class Stage(NamedTuple):
    """A step from rounding to nearest to what a scheme does by itself, or a step beyond it."""
    name: str
    schemes: tuple
    kept: tuple = ()      # the schemes that do it by themselves: later stages are added to it
    front: str = ""       # passes before the weights are rounded
    data: str = ""        # calibration right before that; one with a method is not replaced
    weights: dict = {}    # options of quantize-weights; "": a bare one; None: none, where an earlier stage has one
    back: str = ""        # passes behind it
    act: str = ""         # options of insert-qdq
    on: str = ""          # the stage that it is nothing without: "alone" is on top of that one
    calibrated: bool = True


SMOOTH = "smooth-fold{%s, bits=$bits, group=$group$zeros, act=%s}, "
STAGES = (
    Stage("range search", ALL, ALL, weights={"search": ""}, calibrated=False),
    Stage("zero points", FOUR_BITS, FOUR_BITS, weights={"asymmetric": ""}, calibrated=False),
    Stage("inputs weigh in the search", FOUR_BITS, weights={"importance": "inputs"}, on="range search"),
    Stage("input blocks of gated layers", ("w4a8 g32",), ("w4a8 g32",), act=", blocks=gated", calibrated=False),
    Stage("rotation of gated layers' inputs", BYTES, ("w8a8", *STATIC),
          "rotate{residual=false, values=false, gated=32}, ", calibrated=False),
    Stage("bounds by squared error", STATIC, STATIC, data="calibrate{method=mse}, "),
    Stage("zero points of activations", STATIC, act=", asymmetric"),
    Stage("shift", ALL, front="calibrate, shift-fold{worth=1}, "),
    Stage("smoothing", ALL, ("w8a16", "w8a8"), SMOOTH % ("search", "$smooth")),
    Stage("AWQ scales", FOUR_BITS, front=SMOOTH % ("method=awq", "none")),
    Stage("rotation", ALL, front="rotate{gated=32}, ", calibrated=False),
    Stage("GPTQ", DYNAMIC, DYNAMIC,
          weights={"method": "gptq", "correct": "0", "refine": "0", "act-order": "false"}),
    Stage("act-order", DYNAMIC, DYNAMIC, weights={"act-order": None}, on="GPTQ"),
    Stage("refits and descent", DYNAMIC, DYNAMIC, weights={"refine": None}, on="GPTQ"),
    Stage("GPTAQ", DYNAMIC, DYNAMIC, weights={"correct": None}, on="GPTQ"),
    Stage("annealing", FOUR_BITS, weights={"anneal": "30"}, on="GPTQ"),
    Stage("low rank", FOUR_BITS, back=", low-rank{rank=16, bits=8, method=eora}"),
    Stage("bias correction", ALL, data="calibrate, ", back=", bias-correct"),
)


def composed(scheme, stages):
    """The passes of the stages, one on top of the other."""
    weights = {"bits": "$bits", "group": "$group", "embedding": "0"}
    for s in stages:
        weights |= s.weights
    data = [text for text in (scheme.data, *(s.data for s in stages)) if text]
    zeros = ", asymmetric" if "asymmetric" in weights else ""
    text = "".join(s.front for s in stages).replace("$zeros", zeros) + (max(data, key=len) if data else "")
    text += "quantize-weights{" + ", ".join(
        f"{k}={v}" if v else k for k, v in weights.items() if v is not None) + "}"
    return text + "".join(s.back for s in stages) + ", insert-qdq{$act" + "".join(s.act for s in stages) + "}"


class Step(NamedTuple):
    """A stage of one scheme: by itself, and behind all before it that the scheme keeps."""
    stage: Stage
    alone: list
    added: list


def steps_of(name):
    out, before = [], []
    for stage in STAGES:
        if name not in stage.schemes:
            continue
        needed = [s for s in STAGES if s.name == stage.on]
        out.append(Step(stage, needed + [stage], before + [stage]))
        if name in stage.kept:
            before = before + [stage]
    return out


# ---- models --------------------------------------------------------------

# Lines measured when --rows does not say otherwise, chosen so that all models together take half an hour
# of two processors. The last pattern that a line matches decides; "!" leaves it out. Every method and
# stage is measured in groups of 32, of the rest what the schemes' goals need.
WHOLE = ("*",)
MAIN = ("*", "!*: *", "!*/OmniQuant", "!*/AWQ", "!*/the same, 1.5*", "!*/own text", "!w4a16 g128/*",
        *(f"w4a16 g128/{m}" for m in (ROUNDING, "zero points*", "the same, zero*", "preset*")),
        "w8a8/*", "w8a8 static/*", "w4a16 g32/*")
FULL = (*MAIN, "w4a8 g32/*: *")
FEW_BUDGETS = (*MAIN, "!budget/*", "budget/4.7*")
USUAL = tuple(f"*/{m}" for m in (ROUNDING, "preset*"))
ORDERED = (*(f"{s}/*" for s in ("w8a8", "w8a8 static", "w4a16 g32", "w4a8 g32")),
           "!*/OmniQuant", "!*/AWQ", "!*/the same, 1.5*")
LARGE = tuple(f"{s}/{m}" for s in ("w8a8", "w4a16 g32", "w4a8 g32") for m in (ROUNDING, "preset*"))


class Model(NamedTuple):
    name: str
    path: str          # below NIBBLE_DATA, or with ./ below the repository; of `base` if made from it
    tokens: str
    calib: str         # the same file: its end
    lines: tuple       # patterns of SCHEME/METHOD, see `matches`
    base: Optional[str] = None   # the model without outlier channels
    sites: tuple = ()  # where to put them
    text_of: Optional[str] = None  # the same model, on text like that of its calibration


BOOKS = ("llm/books3m.plain.onnx", "text/books_val.tok1024.npy", "text/books_calib.tok1024.npy")
STORIES = ("llm/stories260K.plain-op17.onnx", *2 * ("text/tinystories.tok512.npy",))
SAMPLE = tuple("./tests/models/sample/" + x for x in ("sample.onnx", "eval.npy", "calib.npy"))
DECODER = tuple("./build/decoder/" + x for x in ("decoder.onnx", "eval.npy", "calib.npy"))
ALL_SITES = ("norm", "updown", "vo")
MODELS = (
    Model("books3m", *BOOKS, FULL),
    Model("books3m.outliers", "llm/books3m.outliers.onnx", *BOOKS[1:], USUAL, "books3m"),
    Model("books3m.outliers-all", *BOOKS, USUAL, "books3m", ALL_SITES),
    Model("books3m.wikitext", BOOKS[0], "text/wikitext2_test_200k.tok1024.npy", BOOKS[2], ORDERED,
          text_of="books3m"),
    Model("stories260K", *STORIES, FEW_BUDGETS),
    Model("stories260K.outliers-mild", "llm/stories260K.outliers-mild.onnx", *STORIES[1:], USUAL,
          "stories260K"),
    Model("stories260K.outliers", "llm/stories260K.outliers.onnx", *STORIES[1:], USUAL, "stories260K"),
    Model("sample", *SAMPLE, (*USUAL, "w4a16 g32/*", "!*: *", "!*/OmniQuant", "!*/the same, 1.5*")),
    Model("sample.outliers-all", *SAMPLE, USUAL, "sample", ALL_SITES),
    Model("decoder", *DECODER, LARGE),
    Model("decoder.outliers-all", *DECODER, LARGE, "decoder", ALL_SITES),
)


# ---- lines ---------------------------------------------------------------

def matches(name, patterns):
    """The last pattern that fits decides; those that begin with ! leave out."""
    fits = [p for p in patterns if fnmatch.fnmatchcase(name, p.lstrip("!"))]
    return bool(fits) and not fits[-1].startswith("!")


class Row(NamedTuple):
    scheme: str
    method: str
    calibrated: bool
    options: list      # of `nibble eval`
    stage: Optional[str] = None  # of the ablation: its name

    def title(self):
        return f"{self.scheme}/{self.method}"

    def key(self):
        """Lines with the same one have the same figures."""
        return (self.calibrated, *self.options, self.method if self.scheme == PEER else "")


# What --summary compares; naive and smoothed differ in one pass.
COLUMNS = "quantize-weights{bits=8, group=0}, insert-qdq{act=i8}"
SUMMARY = (
    Row("f32", "", False, ["--scheme", "f32"]),
    Row("w8a16", "preset", False, ["--scheme", "w8a16"]),
    Row("w8a8", "naive", False, by_passes(COLUMNS)),
    Row("w8a8", "smoothed", True, by_passes("calibrate, smooth-fold{search}, " + COLUMNS)),
    Row("w8a8", "preset", False, ["--scheme", "w8a8"]),
    Row("w4a16", "preset", False, ["--scheme", "w4a16"]),
    Row("w4a16", "preset with data", True, ["--scheme", "w4a16"]),
    Row("w4a8", "preset", False, ["--scheme", "w4a8"]),
    Row("w4a8", "preset with data", True, ["--scheme", "w4a8"]),
)


def filled(text, scheme):
    return string.Template(text).substitute(scheme._asdict())


def stage_rows(name):
    scheme, out = SCHEMES[name], []
    for step in steps_of(name):
        for how, stages in (("alone", step.alone), ("added", step.added)):
            calibrated = bool(scheme.data) or any(s.calibrated for s in stages)
            out.append(Row(name, f"{how}: {step.stage.name}", calibrated,
                           by_passes(filled(composed(scheme, stages), scheme)), step.stage.name))
    return out


def rows_of(model):
    """All lines of a model's tables, f32 first."""
    out = [Row("f32", "", False, ["--scheme", "f32"])]
    for name, scheme in SCHEMES.items():
        for m in METHODS:
            if name in m.schemes:
                text = filled(m.text, scheme)
                options = text.split() if text.startswith("--") else by_passes(text)
                out.append(Row(name, m.name, m.calibrated or bool(scheme.data), options))
    if model.base or model.text_of:
        return out
    out += [Row("budget", f"{bits} bits", False, ["--scheme", base, "--budget", f"{bits}bpw"])
            for bits, base in BUDGETS]
    out += [Row(PEER, mix, False, ["--scheme", "f32"]) for mix in MIXES]
    return out + [row for name in ALL for row in stage_rows(name)]
