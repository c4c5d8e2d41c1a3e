#!/usr/bin/env bash
# Asks the RustSec database whether a crate of a Cargo.lock has a known advisory. Without the database (no network) it says so
# and ends well: an old copy would say nothing of what is new.
set -euo pipefail
cd "$(dirname "$0")/.."
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
source=https://github.com/RustSec/advisory-db
if ! timeout 120 git clone --quiet --depth 1 "$source" "$database/db" 2>"$database/error"; then
  echo "skipped: the advisory database can't be reached: $(tail -n 1 "$database/error")"
  exit 0
fi
cargo audit --version >/dev/null 2>&1 || cargo install cargo-audit --version 0.22.2 --locked --quiet
for lock in Cargo.lock tests/fuzz/Cargo.lock; do
  echo "+ $lock"
  cargo audit --db "$database/db" --no-fetch --stale --deny warnings --file "$lock"
done
