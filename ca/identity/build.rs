//! Turns `proto/myelin.proto` into message types, with a compiler written in Rust (no `protoc` on
//! the builder's machine). Called by cargo before this crate; the CA and the sidecar make their own
//! server and client stubs from the same file.
//! Never: service stubs, network, files outside `OUT_DIR`.

// SPDX-License-Identifier: Apache-2.0

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/myelin.proto");
    let files = protox::compile(["myelin.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .skip_debug(["myelin.v1.JoinToken", "myelin.v1.KubernetesToken"])
        .compile_fds(files)?;
    Ok(())
}
