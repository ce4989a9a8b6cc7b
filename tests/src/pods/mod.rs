//! Pods without a kubelet: what the webhook answered is played with podman, in the order and with the
//! probes of a kubelet, over images that buildah has built. Called by the suite `pods`.
//!
//! What is real: the injector asked over HTTPS with an AdmissionReview, the images' Dockerfile, the
//! container runtime with its seccomp filter and capabilities, the CA and the controller as the chart's
//! own pods, the network namespaces and the bridge, the traffic. What is played here, because only a cluster has
//! it: the kubelet (`kubelet`, `probe`, `volumes`: the order of containers, probes, projected files,
//! tokens), the API server (`myelin-fake-api` behind `front`, and what its own admission adds:
//! `admission`), cluster DNS (one name in /etc/hosts), kube-proxy (one route to the CA's Service), and the
//! network plugin (`myelin-lab` makes the pod's namespace, and podman is told
//! to use it, so there is neither a pause container nor a network of podman's).
//!
//! The images hold debug programs with the shared libraries that `ldd` names. Those that are released
//! are static: `just images` builds and checks them.
//!
//! Never: a field of a pod's or a container's spec that is passed over because nobody here knows it. What
//! is known and not played: scheduling, limits of CPU, sizes of volumes, `postStart`.

// SPDX-License-Identifier: Apache-2.0

mod admission;
mod chart;
mod cluster;
mod container;
mod engine;
mod front;
mod images;
mod kubelet;
mod probe;
mod systems;
mod tokens;
mod volumes;

pub use self::cluster::{Cluster, NAMESPACE, OUTSIDE, SYSTEM};
pub use self::engine::Engine;
pub use self::kubelet::{Ended, Played};
pub use self::probe::ask;
