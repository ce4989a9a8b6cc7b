//! Generates the server of the service directory's protocol from the proto file that is shared with the
//! sidecar (its messages live in `myelin-identity`). Called by cargo.
//!
//! Never: a client, needs a `protoc`, writes outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

const SERVICES: &str = "../../ca/identity/proto/services.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile([SERVICES], ["../../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .extern_path(".myelin.services.v1", "::myelin_identity::services::proto")
        .compile_fds(files)?;
    println!("cargo::rerun-if-changed={SERVICES}");
    Ok(())
}
