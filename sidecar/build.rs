//! Generates gRPC stubs: the client of the CA's API from the one proto file that sidecar and CA
//! share (its messages live in `myelin-identity`), and the servers of the Workload API and of
//! Envoy's secret discovery. Called by cargo.
//!
//! Never: generates a server of the CA, needs a `protoc`, writes outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

const CA: &str = "../ca/identity/proto/myelin.proto";
const WORKLOAD: &str = "proto/workload.proto";
const SECRETS: &str = "proto/sds.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile([CA], ["../ca/identity/proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .extern_path(".myelin.v1", "::myelin_identity::issuance::proto")
        .compile_fds(files)?;
    let files = protox::compile([WORKLOAD, SECRETS], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(true)
        // They carry keys: none of them can be logged.
        .skip_debug(["."])
        .compile_fds(files)?;
    for proto in [CA, WORKLOAD, SECRETS] {
        println!("cargo::rerun-if-changed={proto}");
    }
    Ok(())
}
