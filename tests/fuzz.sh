#!/usr/bin/env bash
# Feeds every reader of foreign bytes with bytes of cargo-fuzz's making: tests/fuzz.sh [SECONDS] [TARGET...]
# Each target runs for SECONDS (60). Needs a C++ compiler (libFuzzer is built from source) and a minute or ten for the first
# build. cargo-fuzz is installed when it is missing. Stable Rust does: RUSTC_BOOTSTRAP allows the sanitizers' flags.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
[ $# -gt 0 ] && shift
case $seconds in '' | *[!0-9]*) echo "usage: tests/fuzz.sh [SECONDS] [TARGET...]" >&2; exit 2 ;; esac
export RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_LTO=off
if ! command -v c++ >/dev/null; then
  echo "skipped: there is no C++ compiler, which libFuzzer needs (apt-get install g++)"
  exit 0
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version 0.13.1 --locked --quiet
target_dir=${CARGO_TARGET_DIR:-$HOME/.cache/aot-target}/fuzz
run=("$@")
[ ${#run[@]} -gt 0 ] || mapfile -t run < <(cd fuzz/seeds && printf '%s\n' *)
# What both sides read needs no master, and is built in a few minutes.
features=(--no-default-features)
for target in "${run[@]}"; do
  grep -q "::wire::" "fuzz/targets/$target.rs" || features=()
done
# Memory is no promise of this build (sanitizers off: all code is safe Rust); panics, time and memory are.
cargo fuzz build --fuzz-dir fuzz --sanitizer none --target-dir "$target_dir" "${features[@]}"
host=$(rustc -vV | sed -n 's/^host: //p')
failed=0
export TMPDIR=${TMPDIR:-$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)}
for target in "${run[@]}"; do
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  log=$(mktemp)
  if "$target_dir/$host/release/$target" -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" "fuzz/corpus/$target" "fuzz/seeds/$target" >"$log" 2>&1; then
    printf '%-14s %s runs, nothing found\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  else
    failed=1
    printf '%-14s FAILED, see tests/fuzz/artifacts/%s:\n' "$target" "$target"
    grep -E 'panicked|ERROR|SUMMARY|Test unit' -A2 "$log" | head -20
  fi
  rm -f "$log"
done
exit $failed
