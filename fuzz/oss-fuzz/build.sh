#!/bin/bash -eu
# Builds every target into $OUT, each with its seeds, dictionary and options: run as
# $SRC/build.sh in the image of OSS-Fuzz, with the sources in $SRC/secure_socket.
# `fuzz/oss-fuzz/try` runs it without an image.
cd "$SRC/secure_socket/fuzz"
./seeds
# -O alone leaves debug assertions out.
cargo fuzz build -O --debug-assertions
host=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-$PWD/target}/$host/release
shopt -s nullglob
for target in $(cargo fuzz list); do
  cp "$built/$target" "$OUT/"
  for file in "dictionaries/$target.dict" "options/$target.options"; do
    if [ -f "$file" ]; then cp "$file" "$OUT/"; fi
  done
  seeds=("corpus/$target"/{seed,regression}-*)
  if [ "${#seeds[@]}" -gt 0 ]; then
    python3 -m zipfile -c "$OUT/${target}_seed_corpus.zip" "${seeds[@]}"
  fi
done
