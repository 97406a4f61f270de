#!/bin/sh
# Makes the image's base, Debian 12 with Python 3.11, of Debian's packages, for a machine that reaches no registry of
# images; as root: base.sh [TAG]
set -eu
tag=${1:-docker.io/library/python:3.11-slim-bookworm}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$scratch/root" >"$scratch/log" ||
    { cat "$scratch/log" >&2; exit 1; }
rm -rf "$scratch/root/usr/lib/python3.11/EXTERNALLY-MANAGED" "$scratch/root/var/cache/apt/archives" \
    "$scratch/root/var/lib/apt/lists"
printf 'FROM scratch\nADD root /\nCMD ["python3"]\n' >"$scratch/Dockerfile"
buildah bud --format docker --tag "$tag" "$scratch"
