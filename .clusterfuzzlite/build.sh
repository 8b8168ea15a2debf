#!/bin/bash -eu
# Builds every target into $OUT, each with its seeds and dictionary, as OSS-Fuzz and
# ClusterFuzzLite want them. By hand: OUT=/tmp/out .clusterfuzzlite/build.sh
cd "$(dirname "$0")/.."
[ -n "${SRC:-}" ] && [ -d "$SRC/secure_socket" ] && cd "$SRC/secure_socket"
: "${OUT:?where to put the targets}"
# The image of OSS-Fuzz has one toolchain, a nightly, in RUSTUP_TOOLCHAIN.
export RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-nightly}

cd fuzz
./seeds
cargo fuzz build -O --debug-assertions
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/$host/release
mkdir -p "$OUT"
for target in $(cargo fuzz list); do
  cp "$built/$target" "$OUT/"
  if [ -f "dictionaries/$target.dict" ]; then
    cp "dictionaries/$target.dict" "$OUT/"
  fi
  if [ -d "corpus/$target" ]; then
    rm -f "$OUT/${target}_seed_corpus.zip"
    python3 -m zipfile -c "$OUT/${target}_seed_corpus.zip" "corpus/$target"/*
  fi
done
