//! stub
//!
//! Never: x

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, bail};
use myelin_lab::Ground;
use super::args::Options;
use super::peers::Programs;
use super::record::{Machine, Scale};

pub(crate) async fn perform(_: &Options, _: Machine, _: Ground, _: &Programs) -> Result<Scale> { bail!("not yet") }
pub(crate) fn table(_: &Scale) -> String { String::new() }
pub(crate) fn plots(_: &Scale) -> Vec<(&'static str, &'static str, String)> { Vec::new() }
