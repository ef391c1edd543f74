#!/bin/sh
# A model compiled with the fused operation gives the bits of the model without it.
#
# usage: compiled.sh NIBBLE PLUGIN KERNEL-OBJECT
set -eu
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
model=$(dirname "$0")/tests/fused.nir
sed '/^; ----/,$d' "$model" >"$out/model.nir"
# Rows of x, as many as it takes for several threads.
printf 'nir 1\ngraph @x() -> (x: f32[512,33]) {\n  const @x: f32[512,33] = random(3, -2..2)\n  const @o: f32[] = {1}\n  %%x: f32[512,33] = mul @x, @o\n  return %%x\n}\n' >"$out/x.nir"
"$1" run "$out/x.nir" --output "$out/x" --quiet

passes="fuse-bias-relu2, plan-memory"
if "$1" compile "$out/model.nir" -o "$out/m.so" --load "$2" --passes "$passes" --quiet 2>"$out/said"; then
    echo "a model without its kernel was linked"
    exit 1
fi
grep -q 'calls nb_call_bias_relu2, which nothing defines' "$out/said"
"$1" compile "$out/model.nir" -o "$out/m.so" --load "$2" --passes "$passes" --link "$3" --quiet
"$1" compile "$out/model.nir" -o "$out/plain.so" --passes "plan-memory" --quiet
for threads in 1 2; do
    "$1" run "$out/m.so" --input "x=$out/x/x.npy" --output "$out/fused" --threads $threads --quiet
    "$1" run "$out/plain.so" --input "x=$out/x/x.npy" --output "$out/plain" --quiet
    cmp "$out/fused/y.npy" "$out/plain/y.npy"
done
# And in memory, by the plug-in's own function.
"$1" run "$out/model.nir" --input "x=$out/x/x.npy" --load "$2" --passes "$passes" --output "$out/jit" --quiet
cmp "$out/jit/y.npy" "$out/plain/y.npy"
