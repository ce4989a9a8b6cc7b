//! Generates the client stubs of the CA's API from the one proto file that sidecar and CA share.
//! The messages themselves live in `myelin-identity`. Called by cargo.
//!
//! Never: generates a server, needs a `protoc`, writes outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

const PROTO: &str = "../ca/identity/proto/myelin.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile([PROTO], ["../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .extern_path(".myelin.v1", "::myelin_identity::issuance::proto")
        .compile_fds(files)?;
    println!("cargo::rerun-if-changed={PROTO}");
    Ok(())
}
