#!/bin/sh
# Builds the image with docker, podman or buildah, whichever works here: build.sh TAG [ARGUMENTS OF THE BUILD...]
# ENGINE names one of them; buildah heeds BUILDAH_ISOLATION and STORAGE_DRIVER.
set -eu
tag=$1
shift
cd "$(dirname "$0")/../.."

works() { command -v "$1" >/dev/null && "$@" >/dev/null 2>&1; }

if [ -z "${ENGINE:-}" ]; then
    if works docker info; then ENGINE=docker
    elif works podman info; then ENGINE=podman
    elif works buildah info; then ENGINE=buildah
    else echo "neither docker, podman nor buildah works here" >&2; exit 1
    fi
fi
case $ENGINE in
    docker) DOCKER_BUILDKIT=1 docker build --tag "$tag" "$@" . ;;
    # Docker's format: the health check is not in the other one.
    podman) podman build --format docker --tag "$tag" "$@" . ;;
    buildah) buildah bud --format docker --layers --tag "$tag" "$@" . ;;
    *) echo "ENGINE=$ENGINE is neither docker, podman nor buildah" >&2; exit 1 ;;
esac
