#!/bin/sh
# Certificates of an authority of its own and one client's key, to try the gateway with:
#   make_secrets.sh FOLDER [NAME ...]
# NAME: by what clients reach the gateway, localhost by default.
set -eu
umask 077
folder=$1
shift
mkdir "$folder"
cd "$folder"
names=
for name in "${@:-localhost}"; do
    names=${names:+$names,}DNS:$name
done
curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
{
    # shellcheck disable=SC2086
    openssl req -x509 $curve -days 3650 -subj "/CN=gateway authority" -keyout ca.key -out ca.pem
    for who in server client; do
        # shellcheck disable=SC2086
        openssl req $curve -subj "/CN=$who" -keyout $who.key -out $who.csr
        echo "subjectAltName=$names" >$who.ext
        openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 \
            -extfile $who.ext -out $who.pem
        rm $who.csr $who.ext
    done
} 2>/dev/null
cp ca.pem clients_ca.pem
key=$(openssl rand -hex 32)
hash=$(printf %s "$key" | openssl dgst -sha1 -binary | openssl base64)
printf 'client:{SHA}%s\n' "$hash" >keys
printf 'authorization: Basic %s\n' "$(printf 'client:%s' "$key" | openssl base64 -A)" >client.header
