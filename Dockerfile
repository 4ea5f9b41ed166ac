# One image for controller, processors and everything else that `aigw` does:
#
#   docker build -t aigw:0.1.0 .
#
# The executable is linked in full, so that the image holds nothing besides it: no shell, no libraries.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools && rm -rf /var/lib/apt/lists/*
RUN rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bins --target "$(uname -m)-unknown-linux-musl" \
    && mkdir /out \
    && cp target/"$(uname -m)"-unknown-linux-musl/release/aigw target/"$(uname -m)"-unknown-linux-musl/release/extproc /out/

# Certificate authorities, a time zone database and a user: 65532.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/aigw /out/extproc /usr/local/bin/
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/aigw"]
