# What the drivers of this folder share, beyond what all drivers do.
# shellcheck source=tests/support/driver.sh
. "$(dirname "${BASH_SOURCE[0]}")/../support/driver.sh"

# case STATUS PATTERN ARGUMENTS...: what is printed on either stream has a line that matches, the exit
# code is STATUS, errors go to stderr alone, and a failing command leaves no file behind. Code that one
# case compiled is not compiled again by the next: most of the time would go there.
case_() {
    local status=$1 pattern=$2 got problem='' cache=()
    shift 2
    case $1 in run | eval | generate | opt | compile | bench | report) cache=(--code-cache "$out/code") ;; esac
    rm -rf "$out/d" && mkdir "$out/d"
    (cd "$out/d" && timeout 120 "$nibble" "$@" "${cache[@]}" >"$out/stdout" 2>"$out/stderr" </dev/null)
    got=$?
    [ "$got" -eq "$status" ] || problem="exit code $got, expected $status"
    [ -z "$pattern" ] || grep -a -q -E -e "$pattern" "$out/stdout" "$out/stderr" || problem="$problem; nothing matches '$pattern'"
    if [ "$status" -ne 0 ]; then
        grep -a -q '^nibble: error:\|error: ' "$out/stderr" || problem="$problem; no error on stderr"
        [ -z "$(ls -A "$out/d")" ] || problem="$problem; left $(find "$out/d" -mindepth 1 | tr '\n' ' ')"
    fi
    if [ -n "$problem" ]; then
        echo "nibble $*"
        head -n 5 "$out/stdout" "$out/stderr"
    fi
    verdict "nibble $*: $problem" "$([ -z "$problem" ] && echo yes)"
}

# keep_compiled KINDS...: the sample in w4a8, as $out/kept/m.KIND.
keep_compiled() {
    local kind
    mkdir -p "$out/kept"
    for kind in "$@"; do
        case_ 0 'qmatmul|wrote|\.'"$kind" compile "$sample" -o "m.$kind" --scheme w4a8
        verdict "compile -o m.$kind writes it" "$([ -s "$out/d/m.$kind" ] && echo yes)"
        cp "$out/d"/* "$out/kept/"
    done
}

# bench_layers MODEL ARGUMENTS...: every phase lists operations whose times and shares add up.
bench_layers() {
    local model=$1
    shift
    case_ 0 '"layers"' bench "$model" --layers --rounds 2 --json "$@"
    verdict "bench --layers of $model adds up" "$(/usr/bin/python3 - "$out/stdout" <<'TEXT'
import json, sys
j = json.load(open(sys.argv[1]))
ok = j["limits"]["read_gb_s"] > 0 and j["layers"]
for phase in j["layers"].values():
    ops, kinds = phase["operations"], phase["kinds"]
    ok = ok and abs(sum(o["ms"] for o in ops) - phase["ms"]) <= 1e-6 * phase["ms"]
    ok = ok and abs(sum(k["share"] for k in kinds) - 1) < 1e-6 and sum(k["count"] for k in kinds) == len(ops)
    for o in ops:
        m, k, n = o.get("mkn", (0, 0, 0))
        ok = ok and o["ops"] == (4 if o["op"] == "attention" else 2) * m * k * n
        ok = ok and (o["of_limit"] is None) == (o["bound"] is None)
        ok = ok and (not o["op"].endswith("matmul") or o["bytes"] > 0)
        ok = ok and (o["bound"] == "cache" or o["bytes"] > 0 or o["ops"] > 0 or not o["moved_bytes"])
    ok = ok and abs(phase["ms"] + phase["unaccounted_ms"] - phase["run_ms"]) <= 1e-6 * phase["run_ms"]
print("yes" if ok else "no")
TEXT
)"
}
