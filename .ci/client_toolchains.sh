#!/usr/bin/env bash
# What the tests of the clients in other languages and of the page need, from Debian's or Ubuntu's
# packages, as root. What cannot be had is reported, and its tests skip.
set -u
export DEBIAN_FRONTEND=noninteractive
groups=(
  "cmake g++ libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc" # C++
  # Java
  "default-jdk-headless libgeronimo-annotation-1.3-spec-java libgrpc-java libguava-java libnetty-java
   libnetty-tcnative-java libperfmark-java libprotobuf-java protobuf-compiler protobuf-compiler-grpc-java-plugin"
  "chromium" # the page
)
missing() { dpkg-query --show --showformat '${db:Status-Abbrev}\n' "$@" 2>&1 | grep -qv '^ii'; }

updated=
for packages in "${groups[@]}"; do
  # shellcheck disable=SC2086 # a list
  missing $packages || continue
  [[ $updated ]] || timeout 120 apt-get update -qq || true
  updated=1
  # shellcheck disable=SC2086 # a list
  timeout 300 apt-get install -qq -y --no-install-recommends $packages >/dev/null ||
    echo "client_toolchains: cannot install $packages: the tests of that skip"
done
exit 0
