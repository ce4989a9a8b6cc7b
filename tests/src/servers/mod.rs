//! Servers that nobody here wrote, in the foreground in a pod, their data in the test's directory.
//! Called by `scenes` and by the suites.
//!
//! Never: a server that the harness replaces by one of its own; a service of the host.

// SPDX-License-Identifier: Apache-2.0

mod iperf;
mod mariadb;
mod nginx;
mod postgres;
mod redis;
mod smtp;

pub use iperf::Iperf;
pub use mariadb::MariaDb;
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use redis::Redis;
pub use smtp::Smtp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
