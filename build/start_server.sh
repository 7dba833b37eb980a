#!/bin/sh
# What the container runs: plans for this GPU and this TensorRT where they are missing, then the
# server in this process's place. Arguments are tritonserver's.
set -eu
here=$(dirname "$0")
repository=${MODEL_REPOSITORY:-$here/../model_repository}
python3 "$here/make_plans.py" --repository "$repository"
exec tritonserver --model-repository="$repository" "$@"
