//! The way to the Kubernetes API: by a kubeconfig, or as a pod finds it, with the token that the
//! kubelet renews.
//!
//! Never: a request; whoever got the client makes them.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::time::Duration;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::AppError;

/// Dialling and handshake; the next try finds a slow server ready.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client, AppError> {
    let wrong = |cause: String| AppError::Cluster { cause };
    let mut config = match kubeconfig {
        None => Config::incluster().map_err(|error| wrong(error.to_string()))?,
        Some(path) => {
            let named =
                |error: &dyn std::fmt::Display| wrong(format!("{}: {error}", path.display()));
            let read = Kubeconfig::read_from(path).map_err(|error| named(&error))?;
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            config.map_err(|error| named(&error))?
        }
    };
    config.connect_timeout = Some(CONNECT_WITHIN);
    kube::Client::try_from(config).map_err(|error| wrong(error.to_string()))
}
