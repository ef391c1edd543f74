#!/bin/sh
# The three ways of running print the same numbers, and the pass took the mul away:
# check.sh MAIN GRAPH OUT.so
out=$("$1" "$2" "$3") || exit 1
echo "$out"
[ "$(echo "$out" | grep -c ': ')" = 3 ] || exit 1
[ "$(echo "$out" | sed -n 's/.*: //p' | sort -u | wc -l)" = 1 ] || exit 1
! echo "$out" | grep -q '^mul'
