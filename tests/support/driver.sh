# The beginning of a test driver in Bash. A driver sets `nibble`, the program as it was given, sources
# this, and ends with `counts`. It then stands in the repository's root and has a scratch folder in
# $out, which goes with it, and the sample model with its held-out tokens.
set -u
nibble=$(realpath "$nibble")
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
sample=$PWD/tests/models/sample/sample.onnx
tokens=$PWD/tests/models/sample/eval.npy
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0 skipped=0

verdict() { # what, yes or not
    if [ "$2" = yes ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1"
    fi
}

counts() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
