//! A hole in the network: nothing passes between one pod and some addresses any more, as if a router
//! swallowed it, and every attempt to connect is counted, while the hole is there and after it.
//!
//! Never: a refusal; whoever sends into the hole hears nothing at all.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use myelin_lab::Pod;

use crate::binaries;
use crate::programs::{LIMIT, output};

/// The table that counts; it stays when the hole is filled.
const COUNTING: &str = "hole_counting";
const DROPPING: &str = "hole_dropping";

/// A hole around one pod.
#[derive(Debug)]
pub struct Hole<'p> {
    pod: &'p Pod,
}

impl<'p> Hole<'p> {
    /// From now on `pod` and `others` do not hear each other; one at a time for a pod.
    pub async fn dig(pod: &'p Pod, others: &[IpAddr], scratch: &Path) -> Result<Self> {
        let set = |v6: bool| {
            let of_family = others.iter().filter(|address| address.is_ipv6() == v6);
            of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let (mut tried, mut incoming, mut outgoing) = (String::new(), String::new(), String::new());
        for (family, addresses) in [("ip", set(false)), ("ip6", set(true))] {
            if addresses.is_empty() {
                continue;
            }
            let from = format!("{family} saddr {{ {addresses} }}");
            tried += &format!("{from} tcp flags & (syn | ack) == syn counter name tried\n");
            incoming += &format!("{from} drop\n");
            outgoing += &format!("{family} daddr {{ {addresses} }} drop\n");
        }
        let rules = format!(
            "table inet {COUNTING} {{\ncounter tried {{}}\n\
             chain input {{\ntype filter hook input priority -20\n{tried}}}\n}}\n\
             table inet {DROPPING} {{\n\
             chain input {{\ntype filter hook input priority -10\n{incoming}}}\n\
             chain output {{\ntype filter hook output priority -10\n{outgoing}}}\n}}\n"
        );
        let file = scratch.join(format!("hole-{}.nft", pod.name()));
        fs::write(&file, rules)?;
        let file = file.to_str().context("the scratch directory's name is no text")?;
        let hole = Self { pod };
        hole.nft(&["-f", file]).await?;
        Ok(hole)
    }

    /// Everything passes again.
    pub async fn fill(&self) -> Result<()> {
        self.nft(&["delete", "table", "inet", DROPPING]).await.map(drop)
    }

    /// SYNs from the others that have reached the pod since the hole was dug, or since the last
    /// call; the kernel's repetitions count as well.
    pub async fn tried(&self) -> Result<u64> {
        let said = self.nft(&["reset", "counter", "inet", COUNTING, "tried"]).await?;
        let packets = said.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
        packets.and_then(|packets| packets.parse().ok()).with_context(|| format!("nft said {said}"))
    }

    async fn nft(&self, args: &[&str]) -> Result<String> {
        let nft = self.pod.command(binaries::installed("nft", "nftables")?);
        output(nft.args(args), LIMIT).await
    }
}
