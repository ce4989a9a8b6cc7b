//! A mesh of Myelin for `scale`: one client, and as many pods of servers as it takes.
//!
//! Never: two workloads behind one sidecar; each pod of servers has its own identity.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use myelin_lab::{Ground, Pod, Proc};

use super::super::cpu;
use super::super::peers::Programs;
use super::super::peers::myelin::{self, Authority, OPS};
use super::super::stage::{BULK, REQUESTS, Side, Stage, address, http_get};

/// A join token names at most 16 addresses, and a sidecar watches at most 64 ports on one of them.
const ADDRESSES_A_POD: u8 = 16;
const PORTS_AN_ADDRESS: u16 = 64;

/// 5 pods of 16 addresses with 64 ports are 5,120 endpoints.
const PODS: u8 = 5;

/// The first of those ports.
const FIRST_PORT: u16 = 9_100;

/// How a mesh is made.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) ca_flags: &'static [&'static str],
    /// Beside the server that every mesh has.
    pub(super) more_pods: u8,
    /// The client's configuration names their addresses, and the CA's directory is not asked.
    pub(super) are_named: bool,
}

/// Processes first, pods after them, the stage last.
pub(super) struct Mesh {
    client: Proc,
    sidecars: Vec<Proc>,
    apps: Vec<Proc>,
    _ca: Proc,
    pods: Vec<Pod>,
    pub(super) stage: Stage,
}

impl Plan {
    pub(super) fn plain() -> Self {
        Self { ca_flags: &[], more_pods: 0, are_named: false }
    }

    pub(super) fn many_endpoints() -> Self {
        Self { more_pods: PODS, ..Self::plain() }
    }

    pub(super) fn many_named() -> Self {
        Self { are_named: true, ..Self::many_endpoints() }
    }

    /// What the client's configuration says beside the defaults.
    fn named(self) -> String {
        let pods = if self.are_named { 0..PODS } else { 0..0 };
        let each = pods.flat_map(|pod| {
            addresses(pod).into_iter().map(move |address| {
                let id = myelin::id(&pod_name(pod));
                format!("\n[[outbound.peer]]\naddress = \"{address}\"\nid = \"{id}\"\n")
            })
        });
        each.collect()
    }
}

impl Mesh {
    pub(super) async fn start(ground: Ground, programs: &Programs, plan: Plan) -> Result<Self> {
        let mut stage = Stage::new(ground, &[address(2)])?;
        stage.serve(vec![REQUESTS]).await?;
        let authority = Authority::start(&stage, programs, plan.ca_flags).await?;
        let start = async |side, pod: &Pod, more: &str| {
            let (launch, _) = authority.enrol(&stage, side, pod, more).await?;
            myelin::start(&stage, &launch, pod).await
        };
        let mut sidecars = vec![start(Side::Server, &stage.server, "").await?];
        let client = start(Side::Client, &stage.client, &plan.named()).await?;
        let (mut pods, mut apps) = (Vec::new(), Vec::new());
        for number in 0..plan.more_pods {
            let pod = stage.pod(&pod_name(number), &addresses(number))?;
            let ports = (0..PORTS_AN_ADDRESS).map(|port| FIRST_PORT + port).collect();
            apps.push(stage.serve_in(&pod, ports).await?);
            sidecars.push(start(Side::Server, &pod, "").await?);
            pods.push(pod);
        }
        Ok(Self { client, sidecars, apps, _ca: authority.process, pods, stage })
    }

    pub(super) fn bulk(&self) -> SocketAddr {
        (address(2), BULK).into()
    }

    /// So many distinct endpoints, spread over pods first, then addresses, then ports.
    pub(super) fn endpoints(&self, number: usize) -> Vec<SocketAddr> {
        if self.pods.is_empty() {
            return vec![(address(2), REQUESTS).into()];
        }
        endpoints(number)
    }

    pub(super) fn clocks(&self) -> BTreeMap<String, Vec<i32>> {
        let all = |procs: &[Proc]| procs.iter().flat_map(|proc| cpu::tree(proc.pid())).collect();
        let mut apps: Vec<i32> = all(&self.apps);
        apps.extend(self.stage.app_pids());
        BTreeMap::from([
            ("client".to_owned(), cpu::tree(self.client.pid())),
            ("server".to_owned(), all(&self.sidecars)),
            ("app".to_owned(), apps),
        ])
    }

    /// Successful renewals of the client's sidecar and the server's, since they started.
    pub(super) async fn renewals(&self) -> Result<u64> {
        let ops = SocketAddr::from(([127, 0, 0, 1], OPS));
        let mut sum = 0;
        for pod in [&self.stage.client, &self.stage.server] {
            let page = http_get(pod, ops, "/metrics").await?;
            sum += renewed(&page).context("a sidecar has no metric of renewals")?;
        }
        Ok(sum)
    }
}

fn pod_name(number: u8) -> String {
    format!("server{number}")
}

fn addresses(pod: u8) -> Vec<IpAddr> {
    let first = ADDRESSES_A_POD * (pod + 1);
    (first..first + ADDRESSES_A_POD).map(address).collect()
}

fn endpoints(number: usize) -> Vec<SocketAddr> {
    let ports = FIRST_PORT..FIRST_PORT + PORTS_AN_ADDRESS;
    let by_port = ports.flat_map(|port| {
        let places = (0..ADDRESSES_A_POD).flat_map(|at| (0..PODS).map(move |pod| (pod, at)));
        places
            .map(move |(pod, at)| SocketAddr::new(address(ADDRESSES_A_POD * (pod + 1) + at), port))
    });
    by_port.take(number).collect()
}

/// The sum of the successful outcomes.
fn renewed(page: &str) -> Option<u64> {
    let lines = page.lines().filter(|line| line.starts_with("myelin_renewals_total{"));
    let good = lines.filter(|line| line.contains("outcome=\"renewed\""));
    let counts = good.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn endpoints_are_distinct_and_enough() {
        let all = endpoints(5_120);
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (5_120, 5_120));
        let own: HashSet<IpAddr> = (0..PODS).flat_map(addresses).collect();
        assert!(all.iter().all(|endpoint| own.contains(&endpoint.ip())));
        assert_eq!(endpoints(10).iter().map(SocketAddr::ip).collect::<HashSet<_>>().len(), 10);
    }

    #[test]
    fn only_renewals_that_succeeded_are_counted() {
        let page = "# TYPE myelin_renewals_total counter\n\
                    myelin_renewals_total{outcome=\"failed\"} 7\n\
                    myelin_renewals_total{outcome=\"renewed\"} 5\n";
        assert_eq!(renewed(page), Some(5));
    }
}
