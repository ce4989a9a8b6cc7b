//! Turns the files in `proto` into message types, with a compiler written in Rust (no `protoc` on
//! the builder's machine). Called by cargo before this crate; the CA and the sidecar make their own
//! server and client stubs from the same file.
//! Never: service stubs, network, files outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in ["myelin.proto", "services.proto", "policy.proto"] {
        println!("cargo::rerun-if-changed=proto/{file}");
    }
    let files = protox::compile(["myelin.proto", "services.proto", "policy.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .skip_debug(["myelin.v1.JoinToken", "myelin.v1.KubernetesToken"])
        // What is encoded once is shared by all who are told of it.
        .bytes(".myelin.services.v1.ServiceAnswer.service")
        .bytes(".myelin.policy.v1.PolicyAnswer.policy")
        .compile_fds(files)?;
    Ok(())
}
