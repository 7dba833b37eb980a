# What tag-curl and tag-grpcurl share; they define `send REQUEST SECONDS`, which sets `code` (OK or a gRPC status)
# and `answer` (KServe's JSON, or the message of the error).

fail() { # STATUS MESSAGE
  printf 'tag: %s\n' "$2" >&2
  exit "$1"
}

timeout=60 batch=32 tls='' ca='' settings='{}' files=() headers=()
budget=5 # retries that all requests of a run have together: a server that is too busy gets no more

number() { # OPTION TEXT
  jq --null-input --exit-status --arg text "$2" '$text | tonumber | . == .' &>/dev/null ||
    fail 2 "$1: '$2' is not a number"
}

change() { # JQ VALUE: change the settings
  settings=$(jq --compact-output --arg value "$2" "$1" <<<"$settings")
}

read_command_line() {
  while (($#)); do
    case $1 in
      --tls) tls=1 && shift && continue ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
      --*) (($# > 1)) || fail 2 "$1: its value is missing" ;;
      *) files+=("$1") && shift && continue ;;
    esac
    case $1 in
      --server) server=$2 ;;
      --tls-ca) tls=1 ca=$2 ;;
      --header) [[ $2 == ?*:* ]] && headers+=(-H "$2") || fail 2 "$1: '$2' is not NAME:VALUE" ;; # curl's and grpcurl's
      --timeout) number "$1" "$2" && timeout=$2 ;;
      --batch) [[ $2 =~ ^[1-9][0-9]*$ ]] && batch=$2 || fail 2 "$1: '$2' is not a number of images" ;;
      --threshold) number "$1" "$2" && change '.threshold = ($value | tonumber)' "$2" ;;
      --top-k) number "$1" "$2" && change '.top_k = ($value | tonumber)' "$2" ;;
      --exclude) change '.exclude += [$value]' "$2" ;;
      --label) change '.labels += [$value]' "$2" ;;
      *) fail 2 "$1: unknown option" ;;
    esac
    shift 2
  done
  ((${#files[@]})) || fail 2 'no image is given'
  model=$(jq --raw-output 'if .labels then "ram_open" else "ram" end' <<<"$settings")
}

make_request() { # IMAGE...: KServe's JSON
  local image
  for image; do
    base64 --wrap=0 "$image" | jq --raw-input --slurp .
  done | jq --compact-output --slurp --slurpfile settings <(echo "$settings") '
    . as $images | length as $rows
    | def rows: [range($rows) as $row | .];
      $settings[0]
    | {inputs: [
        {name: "image", datatype: "BYTES", shape: [$rows, 1], data: $images},
        (.threshold // empty | {name: "threshold", datatype: "FP32", shape: [$rows, 1], data: rows}),
        (.top_k // empty | {name: "top_k", datatype: "INT32", shape: [$rows, 1], data: rows}),
        (.exclude // empty | {name: "exclude", datatype: "BYTES", shape: [$rows, length], data: (rows | add)}),
        (.labels // empty | {name: "labels", datatype: "BYTES", shape: [length], data: .})],
      outputs: (["tags", "tags_zh", "scores", "count"] | map({name: .}))}'
}

print_tags() { # IMAGE...: rows are padded to the longest, `count` of each are tags
  jq --raw-output '
    (.outputs | map({(.name): .}) | add) as $output
    | $output.tags.shape[1] as $width
    | range($ARGS.positional | length) as $row
    | range($output.count.data[$row]) as $column
    | ($row * $width + $column) as $at
    | [$ARGS.positional[$row], ($output.scores.data[$at] * 1e6 | round / 1e6), $output.tags.data[$at],
       $output.tags_zh.data[$at]]
    | @tsv' --args "$@" <<<"$answer"
}

now() { echo "${EPOCHREALTIME//[.,]/}"; } # microseconds

deliver() { # REQUEST: send it, again while the server is UNAVAILABLE; the timeout covers all attempts
  local delay left end
  code=DEADLINE_EXCEEDED answer="no answer within $timeout s"
  end=$(($(now) + $(jq --null-input "$timeout * 1e6 | floor")))
  for delay in 0.2 0.4 0.8 1.6 ''; do
    left=$((end - $(now)))
    ((left > 0)) || return 0
    send "$1" "$(printf '%d.%06d' $((left / 1000000)) $((left % 1000000)))"
    [[ $code == UNAVAILABLE ]] || return 0
    if (($(now) >= end)); then # while it connected
      code=DEADLINE_EXCEEDED
      return 0
    fi
    [[ $delay ]] && ((budget-- > 0)) || return 0
    sleep "$delay"
  done
}

main() {
  local first some image status=0
  read_command_line "$@"
  request=$(mktemp)
  trap 'rm -f "$request"' EXIT
  for ((first = 0; first < ${#files[@]}; first += batch)); do
    some=("${files[@]:first:batch}")
    for image in "${some[@]}"; do
      [[ -f $image && -r $image ]] && continue
      printf 'tag: %s: cannot be read\n' "$image" >&2
      status=1
      continue 2
    done
    make_request "${some[@]}" >"$request"
    deliver "$request"
    if [[ $code == OK ]]; then
      print_tags "${some[@]}"
    else
      printf 'tag: %s: %s\n' "$code" "$answer" >&2
      status=1
    fi
  done
  exit "$status"
}
