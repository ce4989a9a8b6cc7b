//! The flags about witnesses: who cosigns our logs' checkpoints, and how many of them must have.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use myelin_identity::log::{MAX_SIGNATURES, NoteKeyError, WitnessKey, cosignature_line};

use crate::https::HttpsUrl;
use crate::log::witness::Witness;

/// Of all cosignatures of a checkpoint together: two checkpoints with them, and the paths of two
/// logs of any size, fit the 8 KiB that a proof may have.
const MAX_COSIGNATURE_BYTES: usize = 2400;

#[derive(Debug, Args)]
pub struct WitnessArgs {
    /// Ask this witness to cosign the checkpoints of our logs (c2sp.org/tlog-witness): its key, @,
    /// and its submission prefix. May be repeated.
    ///
    /// The key is as the witness' operator gives it: <name>+<8 hex digits>+<base64>. The witness
    /// must know the keys of our logs first; docs/operate/log.md says how to show them.
    #[arg(long = "witness", value_name = "KEY@URL")]
    pub witnesses: Vec<String>,
    /// How many of them must have cosigned a checkpoint before a certificate below it is handed
    /// out. 0: they are asked, and nobody waits for them.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub witness_quorum: usize,
    /// CA certificates (PEM) by which the witnesses' servers are recognised. Default: the
    /// system's.
    #[arg(long, value_name = "FILE", requires = "witnesses")]
    pub witness_roots: Option<PathBuf>,
}

/// Who is asked, and by what their servers are recognised.
#[derive(Clone, Debug, Default)]
pub struct WitnessConfig {
    pub named: Vec<Witness>,
    pub quorum: usize,
    /// None: the system's.
    pub roots: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum WitnessFlagError {
    #[error(
        "--witness {0:?} has no URL after its key; expected <name>+<8 hex digits>+<base64>@https://..."
    )]
    NoUrl(String),
    #[error("--witness {text:?}: {why}; copy the key whole, as the witness' operator gives it")]
    Key { text: String, why: NoteKeyError },
    #[error(
        "--witness {0:?}: the URL is no https:// one, nor http:// with an address of this machine's loopback; expected the witness' submission prefix"
    )]
    Url(String),
    #[error("--witness names {0} twice; each has one voice")]
    Twice(String),
    #[error(
        "{0} witnesses with names as long as theirs do not fit below a checkpoint ({MAX_COSIGNATURE_BYTES} bytes, {most} at most); name fewer", most = MAX_SIGNATURES - 1
    )]
    TooMany(usize),
    #[error(
        "--witness-quorum {quorum} of {named} witnesses can never be there; name more, or ask for less"
    )]
    Quorum { quorum: usize, named: usize },
}

impl WitnessArgs {
    /// Checks what flags alone can say.
    pub(super) fn config(&self) -> Result<WitnessConfig, WitnessFlagError> {
        let named: Vec<Witness> =
            self.witnesses.iter().map(|text| witness(text)).collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = named.iter().find(|witness| !seen.insert(&witness.key)) {
            return Err(WitnessFlagError::Twice(twice.key.name().to_owned()));
        }
        let line = |witness: &Witness| cosignature_line(&witness.key, 0, &[0; 64]).len();
        let bytes: usize = named.iter().map(line).sum();
        if bytes > MAX_COSIGNATURE_BYTES || named.len() >= MAX_SIGNATURES {
            return Err(WitnessFlagError::TooMany(named.len()));
        }
        let quorum = self.witness_quorum;
        if quorum > named.len() {
            return Err(WitnessFlagError::Quorum { quorum, named: named.len() });
        }
        Ok(WitnessConfig { named, quorum, roots: self.witness_roots.clone() })
    }
}

fn witness(text: &str) -> Result<Witness, WitnessFlagError> {
    // A key has no @ behind its name, and a URL none at all.
    let (key, url) =
        text.rsplit_once('@').ok_or_else(|| WitnessFlagError::NoUrl(text.to_owned()))?;
    let key: WitnessKey =
        key.parse().map_err(|why| WitnessFlagError::Key { text: text.to_owned(), why })?;
    let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
    let url = HttpsUrl::parse_or_loopback(&url);
    let url = url.ok_or_else(|| WitnessFlagError::Url(text.to_owned()))?;
    Ok(Witness { key, url })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn serve(extra: &[&str]) -> Result<WitnessConfig, String> {
        let start = ["myelin-ca", "serve", "--trust-domain", "a.example", "--data", "/d"];
        let cli =
            Cli::try_parse_from(start.iter().chain(extra)).map_err(|error| error.to_string())?;
        let Command::Serve(serve) = cli.command else { panic!("another command") };
        serve.config().map(|config| config.witnesses).map_err(|error| error.to_string())
    }

    fn key(name: &str) -> String {
        WitnessKey::new(name, [7; 32]).unwrap().to_string()
    }

    #[test]
    fn witnesses_are_keys_at_urls() {
        assert!(serve(&[]).unwrap().named.is_empty());
        let (one, two) = (key("witness.example/w1"), key("me@home.example"));
        let (one, two) = (format!("{one}@https://w.example/a/"), format!("{two}@http://[::1]:80"));
        let config =
            serve(&["--witness", &one, "--witness", &two, "--witness-quorum", "2"]).unwrap();
        let names: Vec<&str> = config.named.iter().map(|witness| witness.key.name()).collect();
        assert_eq!((names, config.quorum), (vec!["witness.example/w1", "me@home.example"], 2));
    }

    #[test]
    fn wrong_witnesses_are_one_line_with_the_fix() {
        let good = format!("{}@https://w.example", key("w"));
        let plain = format!("{}@http://10.0.0.1:80", key("w"));
        let cut = format!("{}@https://w.example", &key("w")[1..]);
        let log = "w+5a0b3c1d+AQcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH@https://w.example";
        let long: Vec<String> = (0..8)
            .map(|n| format!("{}@https://w.example", key(&format!("{n}{}", "x".repeat(290)))))
            .collect();
        let long: Vec<&str> = long.iter().flat_map(|text| ["--witness", text]).collect();
        for (flags, expected) in [
            (vec!["--witness", "w+5a0b3c1d+AQcH"], "no URL"),
            (vec!["--witness", "w@https://w.example"], "not a key"),
            (vec!["--witness", log], "cosignature key"),
            (vec!["--witness", &cut], "copy the key whole"),
            (vec!["--witness", &plain], "loopback"),
            (vec!["--witness", &good, "--witness", &good], "twice"),
            (vec!["--witness", &good, "--witness-quorum", "2"], "never be there"),
            (vec!["--witness-quorum", "1"], "never be there"),
            (vec!["--witness-roots", "/r"], "--witness"),
            (long, "name fewer"),
        ] {
            let error = serve(&flags).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
