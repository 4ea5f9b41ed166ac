//! Compiles `proto/` without protoc. Bodies and header values become `Bytes`, so that decoding does not copy them.

use std::io::Error;

fn main() -> Result<(), Error> {
    const PROTOS: [&str; 3] = [
        "proto/aigw/config/v1/config_stream.proto",
        "proto/envoy/service/ext_proc/v3/external_processor.proto",
        "proto/grpc/health/v1/health.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    // The version that documents of a controller have to name; see `source::STAMP`.
    println!("cargo:rerun-if-env-changed=AIGW_VERSION");
    let descriptors = protox::compile(PROTOS, ["proto"]).map_err(Error::other)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)
}
