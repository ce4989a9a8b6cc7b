//! Logs to standard error, for people or as JSON lines, with a level that can be changed while we
//! run. Called by `main` at start and by the operator's socket.
//!
//! Never: a key, a token or a payload byte; colour when nobody at a terminal reads.

// SPDX-License-Identifier: Apache-2.0

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::LogFormat;

type Apply = dyn Fn(Targets) -> Result<(), String> + Send + Sync;

/// The handle to change the level by.
#[derive(Clone)]
pub struct Logs {
    apply: Arc<Apply>,
    now: Arc<std::sync::Mutex<String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("log level {seen:?} is not understood: {why}; write for example info, or connection=debug")]
pub struct LogError {
    seen: String,
    why: String,
}

impl Logs {
    /// Starts logging. `level` is a level or a list of `target=level`.
    pub fn start(level: &str, format: LogFormat) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let colour = std::io::stderr().is_terminal();
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        let lines: Box<dyn Layer<_> + Send + Sync> = match format {
            LogFormat::Human => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        // A second start in one process (tests) keeps the first.
        let _ = Registry::default().with(lines.with_filter(filter)).try_init();
        let apply = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        Ok(Self { apply: Arc::new(apply), now: Arc::new(std::sync::Mutex::new(level.to_owned())) })
    }

    pub fn level(&self) -> String {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn change(&self, level: &str) -> Result<(), String> {
        (self.apply)(parse(level).map_err(|error| error.to_string())?)?;
        level.clone_into(&mut self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(())
    }
}

/// A bare level speaks of this project; libraries below it stay at `info` at most.
fn parse(level: &str) -> Result<Targets, LogError> {
    let bare = matches!(level, "debug" | "trace");
    let quiet = if bare { ",h2=info,hyper=info,hyper_util=info,tonic=info,tower=info" } else { "" };
    // The library takes a word that is no level for the name of a target, and silences all others.
    let is_level =
        |word: &&str| word.contains('=') || !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = level.split(',').find(|word| !is_level(word)) {
        return Err(LogError { seen: level.to_owned(), why: format!("{word:?} is no level") });
    }
    format!("{level}{quiet}")
        .parse::<Targets>()
        .map_err(|error| LogError { seen: level.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_of_targets_are_understood_and_nothing_else() {
        for (level, is_understood) in [
            ("info", true),
            ("debug", true),
            ("warn,connection=debug", true),
            ("connection=trace,myelin_sidecar::relay=off", true),
            ("debugg", false),
            ("info,connection", false),
            ("info,connection=loud", false),
            ("", false),
        ] {
            assert_eq!(parse(level).is_ok(), is_understood, "{level:?}");
        }
    }
}
