#!/bin/sh
# What the container runs: plans for this GPU and this TensorRT where they are missing, then the
# server in this process's place. Arguments are tritonserver's.
set -eu
here=$(dirname "$0")
repository=${MODEL_REPOSITORY:-$here/../model_repository}
ram-triton plans --repository "$repository" &
plans=$!
# As a container's first process the shell would not be stopped by a signal, nor hand it on.
trap 'kill "$plans" 2>/dev/null || true; wait "$plans" || true; exit 143' INT TERM
wait "$plans"
trap - INT TERM
exec tritonserver --model-repository="$repository" "$@"
