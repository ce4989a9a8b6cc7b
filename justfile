# SPDX-License-Identifier: Apache-2.0
# `just check` is what CI runs. The suites come last, so that their summary ends the output.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Everything, in the order of what fails fastest.
check: lint doc budget metrics dashboards chart test

# Formatting, lints, and what may be in the dependency tree.
lint:
    cargo fmt --all --check
    cargo deny check licenses bans sources
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The examples in the documentation.
doc:
    cargo test --doc --workspace

# The hot path keeps its budget of instructions (valgrind counts; clocks do not matter).
budget:
    cargo build --release -p myelin-benches --features instructions
    target/release/budget

# One demo, to its verdict.
demo:
    cargo run --release -- demo --quick --json

# The same demo with a Prometheus beside it: each query of the dashboards and alerts finds data.
dashboards:
    .ci/dashboards

# helm, kubectl, the schemas of Kubernetes and our own programs have nothing to say about the chart.
chart:
    .ci/chart

# promtool has nothing to say about the metrics of a running CA and a running sidecar.
metrics:
    .ci/metrics

# Every suite, network namespaces included; installs the servers that they talk to.
test:
    tests/run

# The images, built with buildah and checked; not in `check`, for the static release build takes minutes.
images:
    deploy/images/build
