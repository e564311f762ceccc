# Serves byte-level language models.
#   CPU (linux/amd64, linux/arm64):   docker build -t mblm-server .
#                                     docker run --read-only --cap-drop ALL -p 8000:8000 mblm-server
#   NVIDIA GPU (linux/amd64):         docker build --target cuda -t mblm-server:cuda .
#                                     docker run --gpus all --read-only --cap-drop ALL -p 8000:8000 mblm-server:cuda

FROM node:20-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsup.config.ts ./
COPY src src
RUN node_modules/.bin/tsup --silent && find dist \( -name "*.map" -o -name "*.d.ts" \) -delete

# Native libraries come ready-made, and of ONNX Runtime's only this platform's are kept.
FROM node:20-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --no-audit --no-fund \
  && find node_modules/onnxruntime-node/bin -type f ! -path "*/linux/$(node -p process.arch)/*" -delete \
  && find node_modules -type f \( -name "*.map" -o -name "*.ts" -o -name "*.md" \) -delete

FROM node:20-bookworm-slim AS server
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="mblm-server" \
  org.opencontainers.image.description="Serves byte-level language models" \
  org.opencontainers.image.licenses="MIT" \
  org.opencontainers.image.version="${VERSION}"
ENV NODE_ENV=production MBLM_HOST=0.0.0.0
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json LICENSE ./
COPY models models
# By number, so that Kubernetes can tell that it is not root: the user `node` of the base image.
USER 1000:1000
EXPOSE 8000
STOPSIGNAL SIGTERM
# It reads the same variables as the server; arguments of `docker run` do not reach it: docs/operations.md.
# Starting Node takes some tenths of a second of a core, more on one that is busy: not too often, and with time to do it.
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["node", "dist/cli/main.js", "health"]
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["serve"]

# ONNX Runtime's CUDA provider and the few libraries of CUDA that it needs, from PyPI, checked by their hashes: 1 GB. (NVIDIA's own
# images have many more.) What was fetched stays in the builder's cache, so that a change of the server fetches nothing.
FROM node:20-bookworm-slim AS cuda-libraries
ARG INSTALL_CUDA_ARGS=""
WORKDIR /app
COPY --from=packages /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json ./
COPY native/prebuilt native/prebuilt
# hadolint ignore=SC2086
RUN --mount=type=cache,target=/app/fetched \
  node dist/cli/main.js install-cuda --dir fetched --with-cuda-libraries ${INSTALL_CUDA_ARGS} && cp -r fetched cuda

# The driver comes from the host: NVIDIA's container toolkit puts its libraries into the container.
FROM server AS cuda
ENV MBLM_CUDA_DIR=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-libraries /app/cuda cuda
COPY native/prebuilt native/prebuilt

# The last one is what is built when no target is named.
FROM server AS cpu
