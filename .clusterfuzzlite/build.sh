#!/bin/bash -eu
# The same for OSS-Fuzz and ClusterFuzzLite: one script builds for both.
exec bash -eux "$SRC/secure_socket/fuzz/oss-fuzz/build.sh"
