#!/bin/sh
# Does an image keep what docs/install.md promises of it? It runs on a dataset as a nameless user, with
# a read-only root, no network and no HOME, and must leave complete results and no toolchain.
#
#   sh containers/check.sh "docker run" IMAGE BIDS_DIR OUTPUT_DIR [option of bids_app...]
set -eu
run=$1 image=$2 bids=$3 out=$4
shift 4

mkdir -p "$out"
chmod a+rwx "$out"
# Docker gives a read-only container no /tmp, Podman does unless asked not to.
confined() {
    $run --rm --read-only --tmpfs /tmp --network none --cap-drop ALL -u 1001:1001 \
        -v "$bids:/data:ro" -v "$out:/out" "$@"
}

# shellcheck disable=SC2016 # for the shell in the container
confined --entrypoint sh "$image" -c '
    unset HOME
    for tool in cc gcc g++ make ld pip pip3 git curl; do
        if command -v $tool; then echo "There is $tool in the image."; exit 1; fi
    done
    if find /root /tmp /var/cache/apt -name "*.whl" -o -name "*.deb" 2>/dev/null | grep .; then exit 1; fi
    cd / && bids_app --version && brainstem-models verify'
confined "$image" /data /out participant "$@"
confined --env HOME= "$image" /data /out participant "$@" # nothing is left to do
confined "$image" /data /out group
confined --entrypoint sh "$image" -c 'cd /out && test -s group_volumes.tsv && ls -- *.html'
