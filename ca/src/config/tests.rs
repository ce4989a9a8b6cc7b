//! The command line as people write it: what it says, and what is wrong with it in one line.
//!
//! Never: a server.

// SPDX-License-Identifier: Apache-2.0

use clap::CommandFactory as _;

use super::*;

fn serve(extra: &[&str]) -> Result<ServeConfig, String> {
    let start = ["myelin-ca", "serve", "--trust-domain", "prod.example", "--data", "/d"];
    let cli = Cli::try_parse_from(start.iter().chain(extra)).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Serve(serve) => serve.config().map_err(|error| error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = serve(&[]).unwrap();
    assert_eq!((config.listen.port(), config.ops_listen.port()), (15010, 15011));
    assert_eq!(
        config.authority.lifetimes,
        Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME, longest: MAX_LIFETIME }
    );
}

#[test]
fn addresses_and_names_of_the_ca_are_told_apart() {
    let config = serve(&["--ca-address", "10.0.0.1", "--ca-address", "ca.prod.example"]).unwrap();
    assert_eq!(config.authority.own_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.authority.own_names, ["ca.prod.example"]);
}

#[test]
fn wrong_values_are_one_line_with_the_fix() {
    let table: [(&[&str], &str); 8] = [
        (&["--max-lifetime", "25h"], "--max-lifetime"),
        (&["--default-lifetime", "2h", "--max-lifetime", "1h"], "--max-lifetime"),
        (&["--rotate-root-every", "9d"], "10days or more"),
        (&["--ca-address", "not a name"], "--ca-address"),
        (&["--default-lifetime", "1m"], "--allow-short-lifetimes"),
        (&["--default-lifetime", "25h"], "24h"),
        (&["--default-lifetime", "3s", "--allow-short-lifetimes"], "--default-lifetime"),
        (&["--default-lifetime", "soon"], "10m or 24h"),
    ];
    for (extra, expected) in table {
        let error = serve(extra).unwrap_err();
        assert!(error.contains(expected), "{extra:?}: {error}");
    }
    assert!(serve(&["--default-lifetime", "15s", "--allow-short-lifetimes"]).is_ok());
}
