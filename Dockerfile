# The service as an image: the Bento of bentofile.yaml and its locked packages on Debian's Python.
#   docker build -t sa2va-service .                          for GPUs: torch with CUDA's libraries
#   docker build -t sa2va-service:cpu --build-arg TORCH=cpu .    without them
# Weights are not baked in, but for the embedded model's.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=cuda
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ARG VERSION=0.1.0
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True
RUN python3 -m venv /opt/venv
WORKDIR /src
COPY requirements/serve.txt requirements/cuda.txt requirements/
# A registry of one's own: --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-deps --only-binary :all: --require-hashes -r requirements/serve.txt \
    && case "$TORCH" in \
        cuda) pip install --no-deps --only-binary :all: --require-hashes -r requirements/cuda.txt ;; \
        cpu) pip install --no-deps --only-binary :all: ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX"} \
            "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements/cuda.txt)" ;; \
        *) echo "TORCH=$TORCH is neither cuda nor cpu" >&2; exit 1 ;; \
    esac
COPY . .
# BentoML asks for uv even where there is nothing to lock.
RUN ln -s /bin/true /usr/local/bin/uv && bentoml build --version "$VERSION" && mv /tmp/bentoml/bentos/sa2va/"$VERSION" /bento \
    && python -m compileall -q /bento/src && mkdir /bento/model_cache /bento/jobs \
    && rm -rf /opt/venv/lib/python3.11/site-packages/torch/test /opt/venv/lib/python3.11/site-packages/torch/include \
    && pip uninstall --quiet --yes pip

FROM ${BASE}
RUN groupadd --gid 1034 sa2va && useradd --uid 1034 --gid 1034 --no-create-home --home-dir /tmp sa2va
COPY --from=build /opt/venv /opt/venv
COPY --from=build /bento /app
RUN chown 1034:1034 /app/model_cache /app/jobs
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 \
    MODEL_PATH=ByteDance/Sa2VA-1B HF_HOME=/app/model_cache TRANSFORMERS_CACHE=/app/model_cache \
    SA2VA_JOBS_DIR=/app/jobs \
    BENTOML_HOME=/tmp/bentoml BENTOML_CONTAINERIZED=true BENTOML_DO_NOT_TRACK=True
VOLUME ["/app/model_cache", "/app/jobs"]
WORKDIR /app/src
USER 1034:1034
EXPOSE 3303
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=6 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3303/readyz', timeout=4)"]
CMD ["bentoml", "serve", "/app", "--host", "0.0.0.0", "--port", "3303"]
