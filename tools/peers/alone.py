"""What tools/bench measures of Nibble alone, in turn with what the machine can do at most."""


def entries(products):
    """What is measured: its name, arguments of `nibble bench`, the figure it prints."""
    few = (("w4a8", 32), ("w4a16", 32), ("w8a8", 0))
    for n, forms, where in ((4096, products, "huge"), (11008, few, "huge"), (4096, few, "shared")):
        for scheme, group in forms:
            yield _product((1, 4096, n), scheme, group, "gb_s", where)
    for m, forms in ((128, products), (512, few)):
        for scheme, group in forms:
            yield _product((m, 4096, 4096), scheme, group, "gop_s")
        yield _product((m, 2048, 2048), "f32", 0, "gop_s")
    for kv in ("f16", "i8"):
        for heads in ((4, 4), (32, 4)):
            yield _attention((1, *heads, 1, 4096, 64), kv, "gb_s")
    yield _attention((1, 32, 4, 512, 512, 64), "f32", "gflop_s")


def _product(case, scheme, group, figure, where="huge"):
    size = ",".join(map(str, case))
    form = scheme if scheme == "f32" else f"{scheme} " + (f"g{group}" if group else "channel")
    return (f"product {size} {form}" + (", pages of a file" if where == "shared" else ""),
            ["--matmul", size, "--scheme", scheme, "--weights-in", where]
            + ([] if scheme == "f32" else ["--group", str(group)]), figure)


def _attention(case, kv, figure):
    size = ",".join(map(str, case))
    return f"attention {size} {kv}", ["--attention", size, "--kv", kv], figure
