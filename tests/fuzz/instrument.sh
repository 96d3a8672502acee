#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of `cargo xtask fuzz`: has the compiler count which
# branches are taken in our own crates, for libFuzzer to steer by. Dependencies
# are compiled as for every other build, and shared with it. Without optimising,
# because our crates hold much generic code of theirs: it takes a third of the time.
rustc=$1
shift
case " $* " in
*" --crate-name backhaul "* | *" --crate-name backhaul_fuzz "*)
    exec "$rustc" "$@" \
        -Copt-level=0 \
        -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*)
    exec "$rustc" "$@"
    ;;
esac
