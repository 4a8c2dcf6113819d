# Gadgetron's runtime image with these gadgets, their chains and weights in it.
#   docker build -f docker/gadgetron.Dockerfile -t gadgetron-with-networks .
#   docker run --rm -p 9002:9002 gadgetron-with-networks
# With a GPU (docker run --gpus all):
#   docker build -f docker/gadgetron.Dockerfile -t gadgetron-with-networks:cuda \
#     --build-arg BASE=ghcr.io/gadgetron/gadgetron/gadgetron_ubuntu_rt_cuda:latest \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 --build-arg EXTRAS=scanner,export,gpu12 .
ARG BASE=ghcr.io/gadgetron/gadgetron/gadgetron_ubuntu_rt_nocuda:latest
# The digest of that base, such as sha256:0123...; empty: whatever the tag names today.
ARG DIGEST=
FROM ${BASE}${DIGEST:+@${DIGEST}}

# The environment of Gadgetron 4.7.2 has Python 3.10, NumPy 1.26 and CUDA 12.3. Builds of torch for CUDA 12.6 run on every
# driver of CUDA 12, and so beside it.
ARG TORCH=2.7.1
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=scanner,export
ARG PREFIX=/opt/conda/envs/gadgetron
ARG REVISION=unknown

LABEL org.opencontainers.image.title="gadgetron-with-networks" \
      org.opencontainers.image.description="Gadgetron with MR reconstruction networks; research software" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.base.digest="${DIGEST}"

# Gadgetron starts the first python of the path, and so does the check of its health.
ENV PATH=${PREFIX}/bin:${PATH}

WORKDIR /opt/gadgetron-networks
COPY --chown=1000:1000 pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY --chown=1000:1000 gadgets gadgets
COPY --chown=1000:1000 mrnets mrnets
COPY --chown=1000:1000 training training
COPY --chown=1000:1000 chains chains
# data_files of the package put the chains into ${PREFIX}/share/gadgetron/config, where the server looks them up.
RUN sed "s/^torch==.*/torch==${TORCH}/" constraints.txt > /tmp/constraints.txt \
    && pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" --constraint /tmp/constraints.txt ".[${EXTRAS}]"

# The base's own user; its entry point starts Gadgetron.
USER 1000
WORKDIR /tmp
EXPOSE 9002
HEALTHCHECK --interval=60s --timeout=15s --start-period=120s --retries=3 \
    CMD ["python", "-m", "gadgets", "ping", "--timeout", "10"]
