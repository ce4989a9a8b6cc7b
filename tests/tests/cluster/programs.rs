//! Programs of this build beside the test, under a kubeconfig: started, read along with, ended. Called by
//! the stories of this suite.
//!
//! Never: a namespace of the kernel's; a program that outlives its test.

// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use myelin_tests::programs::{LIMIT, eventually};

/// Lines of its log that are shown when something fails.
const LAST_LINES: usize = 20;

pub(crate) struct Program {
    child: Mutex<Child>,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stderr.take().context("its log")?).lines();
        let logged = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&logged);
        // Until it ends: who logs into a full pipe hangs.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { child: Mutex::new(child), logged })
    }

    /// Waits for a line of its log that holds this; yields the line.
    pub(crate) async fn says(&self, words: &str) -> Result<String> {
        let mut found = None;
        let what = format!("it says {words:?}");
        let said = eventually(&what, LIMIT, async || {
            found = self.lines().into_iter().find(|line| line.contains(words));
            if found.is_none() {
                let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
                ensure!(child.try_wait()?.is_none(), "it has ended");
            }
            Ok(found.is_some())
        });
        said.await.with_context(|| self.last_words())?;
        found.context("it was found")
    }

    pub(crate) fn last_words(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn lines(&self) -> Vec<String> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}
