#!/bin/sh
# What the container runs: plans for this GPU and this TensorRT if they are missing, then, in place
# of this process, the server under its supervisor, which ends with status 1 if it cannot bring it
# back. Arguments are those of tritonserver. RAM_PROFILE=cpu needs no GPU and no plans. RAM_TRITON_KEY
# is the key of Triton's restricted APIs; without one nobody can use them.
set -eu
here=$(dirname "$0")
repository=${MODEL_REPOSITORY:-$here/../model_repository}
profile=${RAM_PROFILE:-gpu}
if [ "$profile" = gpu ]; then
    # As a container's first process the shell would neither end at a signal nor pass it on.
    trap '[ -z "${!-}" ] || { kill "$!" 2>/dev/null || true; wait "$!" || true; }; exit 143' INT TERM
    ram-triton plans --repository "$repository" &
    wait "$!"
    trap - INT TERM
fi
RAM_TRITON_KEY=${RAM_TRITON_KEY:-$(python3 -c 'import secrets; print(secrets.token_hex(32))')}
export RAM_TRITON_KEY
exec ram-triton serve --repository "$repository" --profile "$profile" \
    --address 0.0.0.0 --verbose --log /dev/null -- "$@"
