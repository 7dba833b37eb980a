#!/bin/sh
# What the container runs: plans for this GPU and this TensorRT if they are missing, then the
# server in place of this process. Arguments are those of tritonserver.
set -eu
here=$(dirname "$0")
repository=${MODEL_REPOSITORY:-$here/../model_repository}
ram-triton plans --repository "$repository" &
plans=$!
# As a container's first process the shell would neither end at a signal nor pass it on.
trap 'kill "$plans" 2>/dev/null || true; wait "$plans" || true; exit 143' INT TERM
wait "$plans"
trap - INT TERM
exec tritonserver --model-repository="$repository" "$@"
