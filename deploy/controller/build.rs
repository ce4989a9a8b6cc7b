//! Generates the servers of the service directory's and the policies' protocols from the proto files that
//! are shared with the sidecar (their messages live in `myelin-identity`). Called by cargo.
//!
//! Never: a client, needs a `protoc`, writes outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

const SERVICES: &str = "../../ca/identity/proto/services.proto";
const POLICY: &str = "../../ca/identity/proto/policy.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile([SERVICES, POLICY], ["../../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        .extern_path(".myelin.services.v1", "::myelin_identity::services::proto")
        .extern_path(".myelin.policy.v1", "::myelin_identity::policy::proto")
        .compile_fds(files)?;
    println!("cargo::rerun-if-changed={SERVICES}");
    println!("cargo::rerun-if-changed={POLICY}");
    Ok(())
}
