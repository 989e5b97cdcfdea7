# syntax=docker/dockerfile:1
# The service in a small image: one binary, no shell needed, a numeric user, nothing written to the root file system.
#
#   docker build -t wallex --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .

FROM rust:1.95.0-bookworm AS build
WORKDIR /build
# `dev` builds in a third of the time, for a look at the image: --build-arg PROFILE=dev
ARG PROFILE=release

# Dependencies first, over an empty crate: this layer is built again only when they change. Cargo reads no manifest that
# names a target without a file, so each one that Cargo.toml names has an empty program here.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/wallex \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs benches/wallex/main.rs \
    && touch src/lib.rs \
    && cargo build --profile "$PROFILE" --locked --bin wallex \
    && cargo clean --profile "$PROFILE" --locked --package wallex \
    && rm -rf src benches

# Then the service itself. The migrations are compiled into the binary. rust-toolchain.toml stays outside (.dockerignore):
# it would have rustup fetch lint and format tools that an image does not need.
COPY . .
RUN cargo build --profile "$PROFILE" --locked --bin wallex \
    && cp target/*/wallex /usr/local/bin/wallex

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="wallex" \
      org.opencontainers.image.description="A wallet and billing service over Postgres, with every event in Kafka in order" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/wallex/wallex" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Roots for TLS to a managed Postgres.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/wallex /usr/local/bin/wallex

# In a container the service must be reachable from outside of it.
ENV HOST=0.0.0.0 \
    PORT=3000 \
    LOG_FORMAT=json
EXPOSE 3000
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
WORKDIR /
# Ready: Postgres answers and no migration is missing. Kafka is not asked.
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 CMD ["/usr/local/bin/wallex", "healthcheck"]
# SIGTERM, which docker sends, is what the service drains on.
ENTRYPOINT ["/usr/local/bin/wallex"]
CMD ["serve"]
