//! Makes the gRPC server stubs (and the client's, for our own tests) from the proto file that `myelin-identity`
//! owns, whose messages are that crate's; and a client of the part of etcd's API that `store` speaks.
//!
//! Never: needs protoc.

// SPDX-License-Identifier: Apache-2.0

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "identity/proto/myelin.proto";
    println!("cargo:rerun-if-changed={proto}");
    let files = protox::compile([proto], ["identity/proto"])?;
    tonic_prost_build::configure()
        .extern_path(".myelin.v1", "::myelin_identity::issuance::proto")
        .codec_path("crate::api::lean::LeanCodec")
        .build_transport(false)
        .compile_fds(files)?;
    let proto = "proto/etcd.proto";
    println!("cargo:rerun-if-changed={proto}");
    let files = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).build_server(false).compile_fds(files)?;
    Ok(())
}
