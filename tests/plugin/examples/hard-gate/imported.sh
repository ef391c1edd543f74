#!/bin/sh
# model.onnx is MatMul, HardGate (alpha 0.25), Relu: it needs the plug-in, and gives the same bits
# called, lowered, compiled to a file and evaluated.
#
# usage: imported.sh NIBBLE PLUGIN
set -eu
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
model=$(dirname "$0")/model.onnx
if "$1" opt "$model" -o "$out/m.nir" --quiet 2>"$out/said"; then
    echo "a model with an operator that nobody brings was imported"
    exit 1
fi
grep -q 'not supported.*example.org::HardGate 1' "$out/said"
"$1" opt "$model" --load "$2" --passes "" -o "$out/m.nir" --quiet
grep -q '@alpha: f32\[\] = {0.25}' "$out/m.nir"
grep -q '@beta: f32\[\] = {0.5}' "$out/m.nir"
grep -q 'call .*{function="hard_gate", to=f32, shape=\[B,4\]} at "/gate"' "$out/m.nir"

printf 'nir 1\ngraph @x() -> (x: f32[64,8]) {\n  const @x: f32[64,8] = random(3, -4..4)\n  const @o: f32[] = {1}\n  %%x: f32[64,8] = mul @x, @o\n  return %%x\n}\n' >"$out/x.nir"
"$1" run "$out/x.nir" --output "$out/x" --quiet
run() { # name, arguments: the output of the model
    name=$1
    shift
    "$nibble" run "$@" --input "x=$out/x/x.npy" --output "$out/$name" --quiet
}
nibble=$1
run called "$model" --load "$2" --passes "plan-memory"
run evaluated "$model" --load "$2" --passes "plan-memory" --interpret
run lowered "$model" --load "$2" --passes "lower-calls, simplify, plan-memory"
"$1" compile "$model" -o "$out/m.so" --load "$2" --passes "lower-calls, simplify, plan-memory" --quiet
run compiled "$out/m.so"
for name in evaluated lowered compiled; do
    cmp "$out/called/y.npy" "$out/$name/y.npy"
done
