//! The flags of federation: our own bundle endpoint, and the operator's `federation` commands.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigError, OperatorArgs, duration};
use crate::federation::{MAX_REFRESH, MIN_REFRESH};
use crate::journal::EndpointProfile;

#[derive(Debug, Args)]
pub struct FederationArgs {
    /// Serve our own trust bundle to other trust domains over HTTPS there, at /. Default: off.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub federation_listen: Option<SocketAddr>,
    /// How our bundle endpoint proves itself: with the CA's own SVID, or with a web certificate.
    #[arg(long, value_enum, default_value = "https_spiffe", requires = "federation_listen")]
    pub federation_profile: Profile,
    /// Certificate chain (PEM) of our bundle endpoint under https_web. Read again when it changes.
    #[arg(long, value_name = "FILE", requires = "federation_listen")]
    pub federation_web_cert: Option<PathBuf>,
    /// Private key (PEM) that goes with it; others must not be able to read it.
    #[arg(long, value_name = "FILE", requires = "federation_listen")]
    pub federation_web_key: Option<PathBuf>,
    /// How soon readers of our bundle are asked to come again, 8s to 24h. A new root must have
    /// reached all of them before it signs.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    pub federation_refresh_hint: Duration,
}

/// Profiles of a bundle endpoint, by the words of the SPIFFE specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    #[value(name = "https_spiffe")]
    HttpsSpiffe,
    #[value(name = "https_web")]
    HttpsWeb,
}

/// Our own bundle endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    pub listen: SocketAddr,
    pub identity: EndpointIdentity,
    pub refresh_hint: Duration,
}

/// As whom it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointIdentity {
    OwnSvid,
    Web { certificate: PathBuf, key: PathBuf },
}

#[derive(Debug, Subcommand)]
pub enum FederationCommand {
    /// Federate with another trust domain: name its bundle endpoint and how it proves itself.
    ///
    /// Peers of that domain are then verified under its bundle, and may be named in the files of
    /// sidecars that have it in federates_with.
    Add(FederationAddArgs),
    /// List the domains that we federate with, and how old their bundles are.
    List(OperatorArgs),
    /// Show one of them with its bundle.
    Show(FederationOneArgs),
    /// Fetch its bundle now.
    Refresh(FederationOneArgs),
    /// End a federation: sidecars end its connections within seconds.
    Remove(FederationOneArgs),
}

#[derive(Debug, Args)]
pub struct FederationAddArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// The foreign trust domain, such as partner.example.
    #[arg(long, value_name = "TRUST-DOMAIN")]
    pub trust_domain: String,
    /// How its endpoint proves itself: with an SVID of its domain, or with a web certificate.
    #[arg(long, value_enum)]
    pub profile: Profile,
    /// Its bundle endpoint: https://host[:port]/path.
    #[arg(long)]
    pub url: String,
    /// Under https_spiffe: the endpoint's SPIFFE ID. Default: spiffe://<trust domain>/myelin/ca,
    /// which is what another Myelin CA has.
    #[arg(long, value_name = "SPIFFE-ID")]
    pub endpoint_spiffe_id: Option<String>,
    /// Its bundle as you got it from its operators (SPIFFE JSON or PEM). Needed with https_spiffe:
    /// the endpoint is recognised by it.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Connect there in place of what the URL's host resolves to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<SocketAddr>,
    /// Under https_web: the authority (PEM) of the endpoint's certificate. Default: the system's.
    #[arg(long, value_name = "FILE")]
    pub web_roots: Option<PathBuf>,
    /// Accept that this domain's certificates come without a proof from an issuance log: its CA
    /// keeps none. Whoever holds one of its CA keys can then make certificates that nobody sees.
    #[arg(long)]
    pub unlogged: bool,
}

#[derive(Debug, Args)]
pub struct FederationOneArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// The foreign trust domain.
    #[arg(long, value_name = "TRUST-DOMAIN")]
    pub trust_domain: String,
}

impl FederationArgs {
    /// Checks what flags alone can say. `None`: no endpoint.
    pub(super) fn config(&self) -> Result<Option<EndpointConfig>, ConfigError> {
        let Some(listen) = self.federation_listen else { return Ok(None) };
        let refresh_hint = self.federation_refresh_hint;
        if !(MIN_REFRESH..=MAX_REFRESH).contains(&refresh_hint) {
            return Err(ConfigError::RefreshHint(refresh_hint.into()));
        }
        let files = (self.federation_web_cert.clone(), self.federation_web_key.clone());
        let identity = match (self.federation_profile, files) {
            (Profile::HttpsSpiffe, (None, None)) => EndpointIdentity::OwnSvid,
            (Profile::HttpsWeb, (Some(certificate), Some(key))) => {
                EndpointIdentity::Web { certificate, key }
            }
            (Profile::HttpsSpiffe, _) => {
                let why = "a web certificate goes with --federation-profile https_web";
                return Err(ConfigError::WebCertificate(why));
            }
            (Profile::HttpsWeb, _) => {
                let why = "https_web needs --federation-web-cert and --federation-web-key";
                return Err(ConfigError::WebCertificate(why));
            }
        };
        Ok(Some(EndpointConfig { listen, identity, refresh_hint }))
    }
}

impl From<Profile> for EndpointProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::HttpsSpiffe => Self::HttpsSpiffe,
            Profile::HttpsWeb => Self::HttpsWeb,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn serve(extra: &[&str]) -> Result<Option<EndpointConfig>, String> {
        let start = ["myelin-ca", "serve", "--trust-domain", "a.example", "--data", "/d"];
        let cli =
            Cli::try_parse_from(start.iter().chain(extra)).map_err(|error| error.to_string())?;
        let Command::Serve(serve) = cli.command else { panic!("another command") };
        let config = serve.config().map_err(|error| error.to_string())?;
        Ok(config.federation)
    }

    #[test]
    fn the_endpoint_is_off_unless_its_port_is_named() {
        assert_eq!(serve(&[]).unwrap(), None);
        let on = serve(&["--federation-listen", "[::]:15012"]).unwrap().unwrap();
        assert_eq!(on.identity, EndpointIdentity::OwnSvid);
        assert_eq!((on.listen.port(), on.refresh_hint.as_secs()), (15012, 300));
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused() {
        let web = ["--federation-listen", "[::]:1", "--federation-profile", "https_web"];
        let with = |more: &[&'static str]| [&web[..], more].concat();
        let both = ["--federation-web-cert", "/c", "--federation-web-key", "/k"];
        let identity = serve(&with(&both)).unwrap().unwrap().identity;
        assert_eq!(identity, EndpointIdentity::Web { certificate: "/c".into(), key: "/k".into() });
        for (flags, expected) in [
            (with(&[]), "--federation-web-key"),
            (with(&["--federation-web-cert", "/c"]), "--federation-web-key"),
            (
                [&["--federation-listen", "[::]:1"][..], &both[..]].concat(),
                "--federation-profile https_web",
            ),
            (both.to_vec(), "--federation-listen"),
            (with(&["--federation-refresh-hint", "7s"]), "8s to 24h"),
            (with(&["--federation-refresh-hint", "25h"]), "8s to 24h"),
        ] {
            let error = serve(&flags).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
