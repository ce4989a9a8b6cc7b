//! Tests of the interception room from inside: what a plan refuses, which bytes a rule becomes,
//! that reading back is the inverse of writing, and that a refused batch changes nothing. What
//! `nft` and real connections say is tested in `tests/intercept_rules`.
//!
//! Never: the namespace of the process.

// SPDX-License-Identifier: Apache-2.0

use std::io::Write as _;

use clap::Parser as _;
use netlink_packet_core::Emitable as _;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, RuleAttribute, SetAttribute,
    SetElementAttribute, SetElementFlags, SetElementList,
};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::netlink::TableDump;
use super::plan::{MAX_EXCLUSIONS, Range};
use super::ruleset::{Key, Rule, Step};
use super::*;

fn plan(config: Config) -> Plan {
    Plan::new(config).unwrap()
}

fn refusal(config: Config) -> String {
    Plan::new(config).unwrap_err().to_string()
}

fn ranges(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| parse_cidr(text).unwrap()).collect()
}

fn fullest() -> Plan {
    plan(Config {
        exclude_outbound_ports: vec![53, 22],
        exclude_inbound_ports: vec![22],
        exclude_cidrs: ranges(&["10.0.0.0/8", "240.0.0.0/4", "fd00::/8", "192.0.2.1"]),
        exclude_uids: vec![100, 1000],
        ..Config::default()
    })
}

#[test]
fn ports_that_cannot_be_meant_are_refused() {
    let base = Config::default;
    let cases = [
        (Config { outbound_port: 0, ..base() }, "the outbound port is 0, expected"),
        (
            Config { ops_port: 15006, ..base() },
            "the inbound port and the ops port are both port 15006",
        ),
        (
            Config { probe_port: Some(15020), ..base() },
            "the ops port and the probe port are both port 15020",
        ),
        (Config { probe_port: Some(0), ..base() }, "the probe port is 0, expected"),
        (Config { exclude_outbound_ports: vec![0], ..base() }, "an excluded outbound port is 0"),
        (Config { exclude_inbound_ports: vec![0], ..base() }, "an excluded inbound port is 0"),
        (Config { exclude_inbound_ports: vec![15001], ..base() }, "excluded inbound port 15001 is"),
        (Config { exclude_inbound_ports: vec![15006], ..base() }, "excluded inbound port 15006 is"),
    ];
    for (config, expected) in cases {
        let line = refusal(config);
        assert!(line.starts_with(expected), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    // The ops port may be named again, and a destination may well listen on 15006.
    plan(Config {
        exclude_inbound_ports: vec![15020],
        exclude_outbound_ports: vec![15006],
        ..base()
    });
}

#[test]
fn users_that_cannot_be_meant_are_refused() {
    let base = Config::default;
    let cases = [
        (Config { exclude_uids: vec![1337], ..base() }, "excluded UID 1337 is the proxy's own"),
        (Config { exclude_uids: vec![u32::MAX], ..base() }, "an excluded UID is 4294967295"),
        (Config { proxy_uid: u32::MAX, ..base() }, "the proxy UID is 4294967295"),
        (Config { proxy_uid: 0, mark: 0, ..base() }, "--proxy-uid 0 with --mark 0"),
    ];
    for (config, expected) in cases {
        let line = refusal(config);
        assert!(line.starts_with(expected), "{line}");
    }
    plan(Config { proxy_uid: 0, ..base() });
    plan(Config { mark: 0, exclude_uids: vec![0], ..base() });
}

#[test]
fn ranges_that_cannot_be_meant_are_refused() {
    let cases = [
        ("10.0.0.0/33", "excluded range `10.0.0.0/33` is neither"),
        ("example.org", "excluded range `example.org` is neither"),
        (
            "10.1.2.3/8",
            "excluded range `10.1.2.3/8` has bits set behind its prefix: write 10.0.0.0/8",
        ),
        ("::ffff:10.0.0.0/104", "excluded range `::ffff:10.0.0.0/104` is IPv4 written as IPv6"),
    ];
    for (text, expected) in cases {
        let line = parse_cidr(text).unwrap_err().to_string();
        assert!(line.starts_with(expected), "{line}");
    }
    for all in [["0.0.0.0/1", "128.0.0.0/1"], ["::/0", "fd00::/8"]] {
        let line = refusal(Config { exclude_cidrs: ranges(&all), ..Config::default() });
        assert!(line.contains("which would switch interception off"), "{line}");
    }
    plan(Config { exclude_cidrs: ranges(&["0.0.0.0/1", "128.0.0.0/2"]), ..Config::default() });
}

#[test]
fn lists_are_bounded() {
    let one_more = u16::try_from(MAX_EXCLUSIONS).unwrap() + 1;
    let ports: Vec<u16> = (1..=one_more).collect();
    let line = refusal(Config { exclude_outbound_ports: ports.clone(), ..Config::default() });
    assert_eq!(line, "257 excluded outbound ports, at most 256: replace them by fewer, wider ones");
    plan(Config { exclude_outbound_ports: ports[1..].to_vec(), ..Config::default() });
}

#[test]
fn overlapping_and_touching_ranges_become_one() {
    let texts = ["10.0.1.0/24", "10.0.0.0/24", "10.0.2.0/24", "10.0.1.7", "10.0.4.0/24", "fe80::1"];
    let plan = plan(Config { exclude_cidrs: ranges(&texts), ..Config::default() });
    let v4 = |a: u8, b: u8, c: u8, d: u8| u128::from(u32::from_be_bytes([a, b, c, d]));
    assert_eq!(
        plan.direct_v4,
        [
            Range { first: v4(10, 0, 0, 0), last: v4(10, 0, 2, 255) },
            Range { first: v4(10, 0, 4, 0), last: v4(10, 0, 4, 255) },
        ]
    );
    assert_eq!(plan.direct_v6.len(), 1, "link-local holds fe80::1");
    let text = text::render(&plan.ruleset());
    assert!(text.contains("elements = { 10.0.0.0-10.0.2.255, 10.0.4.0/24 }"), "{text}");
    assert!(text.contains("elements = { fe80::/10 }"), "{text}");
}

#[test]
fn keys_and_constants_have_the_byte_order_that_the_kernel_compares() {
    assert_eq!(Key::DestinationPort.to_bytes(15001), [0x3a, 0x99]);
    assert_eq!(Key::DestinationV4.to_bytes(0x0a00_0001), [10, 0, 0, 1]);
    assert_eq!(Key::DestinationV6.to_bytes(1)[15], 1);
    assert_eq!(Key::SocketUid.to_bytes(1337), 1337_u32.to_ne_bytes());
    // (step, the value that must appear in the rule's bytes)
    let cases: [(Step, &[u8]); 6] = [
        (Step::SocketUid(1337), &1337_u32.to_ne_bytes()),
        (Step::Mark(0x6d79), &0x6d79_u32.to_ne_bytes()),
        (Step::CtState(14), &14_u32.to_ne_bytes()),
        (Step::Redirect(15001), &[0x3a, 0x99]),
        (Step::Tcp, &[6]),
        (Step::OutInterface("lo".to_owned()), b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    for (step, value) in cases {
        let bytes = rule_bytes(&step);
        // The value is one attribute: its length (with header), type 1 (value), the bytes.
        let len = u16::try_from(value.len() + 4).unwrap().to_ne_bytes();
        let attribute = [&len, &1_u16.to_ne_bytes(), value].concat();
        let found = bytes.windows(attribute.len()).any(|window| window == attribute);
        assert!(found, "{step:?}: {value:x?} is not in {bytes:x?}");
    }
}

#[test]
fn range_is_a_start_and_an_end_unless_it_reaches_the_highest_key() {
    let found: Vec<_> = fullest_elements("outbound_direct_v4");
    let end = SetElementFlags::IntervalEnd;
    let start = SetElementFlags::empty();
    assert_eq!(
        found,
        [
            (vec![10, 0, 0, 0], start),
            (vec![11, 0, 0, 0], end),
            (vec![192, 0, 2, 1], start),
            (vec![192, 0, 2, 2], end),
            (vec![240, 0, 0, 0], start),
        ]
    );
    let ports = fullest_elements("outbound_direct_ports");
    assert_eq!(ports, [(vec![0, 22], start), (vec![0, 53], start)]);
}

#[test]
fn reading_back_is_the_inverse_of_writing() {
    let empty_mark = plan(Config { mark: 0, ..Config::default() });
    for plan in [plan(Config::default()), empty_mark, fullest()] {
        let ruleset = plan.ruleset();
        assert_eq!(decode::ruleset(&dump_of(&ruleset)).unwrap(), ruleset);
    }
}

#[test]
fn changed_rule_is_not_read_as_the_promised_one() {
    let promised = fullest().ruleset();
    for (index, chain) in promised.chains.iter().enumerate() {
        for position in 0..chain.rules.len() {
            let mut changed = promised.clone();
            changed.chains[index].rules[position].steps.insert(0, Step::Unknown("fib".to_owned()));
            let read = decode::ruleset(&dump_of(&changed)).unwrap();
            assert_ne!(read, promised);
            assert_eq!(read, changed);
            let line = text::first_difference(&read, &promised);
            assert!(line.contains("(unknown expression fib)"), "{line}");
        }
    }
}

#[test]
fn counters_do_not_make_a_difference() {
    let promised = fullest().ruleset();
    let mut counted = promised.clone();
    counted.chains[0].rules[0].steps[2] = Step::Counter { packets: 7, bytes: 700 };
    assert_ne!(counted, promised);
    assert_eq!(counted.without_counts(), promised);
}

#[test]
fn kernel_refusals_say_who_has_to_act() {
    let cases = [
        (true, Errno::EPERM, "CAP_NET_ADMIN"),
        (false, Errno::EPERM, "CAP_NET_ADMIN"),
        (false, Errno::EOPNOTSUPP, "this kernel has no nf_tables"),
        (false, Errno::EINVAL, "this kernel has no nf_tables"),
        (true, Errno::ENOENT, "lacks a part of nf_tables"),
        (true, Errno::EINVAL, "the kernel refused (EINVAL: Invalid argument: words)"),
    ];
    for (creates, errno, expected) in cases {
        let line = InterceptError::from_kernel("doing it", creates, errno, "words").to_string();
        assert!(line.starts_with("doing it: ") && line.contains(expected), "{line}");
    }
    assert!(InterceptError::from_kernel("x", false, Errno::ENOENT, "").is_not_found());
    assert!(!InterceptError::from_kernel("x", true, Errno::ENOENT, "").is_not_found());
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    intercept: InterceptArgs,
}

#[test]
fn command_line_reads_lists_marks_and_defaults() {
    let parse = |words: &str| Cli::try_parse_from(["x"].into_iter().chain(words.split(' ')));
    let config = |words: &str| match parse(words).unwrap().intercept.command {
        InterceptCommand::Apply(args) => args.config(),
        other => panic!("{other:?}"),
    };
    assert_eq!(config("apply"), Config::default());
    let given = config("apply --mark 7 --exclude-uid 1,2 --exclude-uid 3 --exclude-cidr 10.0.0.1");
    assert_eq!((given.mark, given.exclude_uids), (7, vec![1, 2, 3]));
    assert_eq!(given.exclude_cidrs, ranges(&["10.0.0.1/32"]));
    for wrong in
        ["apply --mark 0x", "apply --exclude-inbound-port 0", "apply --exclude-cidr 10.1.1.1/8"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

/// As in the namespace suite: without privilege this fails, unless it is skipped by name.
#[test]
fn refused_batch_leaves_the_old_rules_as_they_were() {
    let done = std::thread::spawn(|| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
            let skip = set("MYELIN_SKIP_NETNS") && !set("MYELIN_REQUIRE_NETNS");
            assert!(skip, "needs root, or MYELIN_SKIP_NETNS=1 to skip (unshare: {errno})");
            let _ = writeln!(std::io::stderr(), "SKIPPED, NOT PASSED: needs root ({errno})");
            return;
        }
        let (old, mut broken) = (fullest(), plan(Config::default()).ruleset());
        apply(&old).unwrap();
        // The last rule of the last chain is refused when all others have been accepted.
        let steps = vec![Step::Unknown("no_such_expression".to_owned())];
        broken.chains[2].rules.push(Rule { steps, comment: Some("broken".to_owned()) });
        let batch = encode::replace(&broken);
        let line = NfSocket::open().unwrap().commit(batch).unwrap_err().to_string();
        assert!(line.starts_with("adding `broken` to chain outbound_guard: "), "{line}");
        assert_eq!(state(&old).unwrap(), State::Applied);
    });
    done.join().unwrap();
}

/// The expressions of a rule with this one step.
fn rule_bytes(step: &Step) -> Vec<u8> {
    let mut ruleset = plan(Config::default()).ruleset();
    ruleset.chains.truncate(1);
    ruleset.chains[0].rules = vec![Rule { steps: vec![step.clone()], comment: None }];
    let Some(NfTablesMessage::NewRule(rule)) = encode::replace(&ruleset).pop().map(|r| r.message)
    else {
        panic!("the last message is no rule")
    };
    let expressions = rule.attributes.iter().find(|a| matches!(a, RuleAttribute::Expressions(_)));
    let mut bytes = vec![0; expressions.unwrap().buffer_len()];
    expressions.unwrap().emit(&mut bytes);
    bytes
}

fn fullest_elements(set: &str) -> Vec<(Vec<u8>, SetElementFlags)> {
    let messages = encode::replace(&fullest().ruleset());
    let of_set = messages.iter().find_map(|request| match &request.message {
        NfTablesMessage::NewSetElement(message)
            if message.attributes.contains(&SetElementList::Set(set.to_owned())) =>
        {
            message.attributes.iter().find_map(|attribute| match attribute {
                SetElementList::Elements(elements) => Some(elements),
                _ => None,
            })
        }
        _ => None,
    });
    let read = |element: &ListAttribute<SetElementAttribute>| {
        let ListAttribute::Element(parts) = element else { panic!("{element:?}") };
        let mut flags = SetElementFlags::empty();
        let mut key = Vec::new();
        for part in parts {
            match part {
                SetElementAttribute::Key(DataAttribute::Value(bytes)) => key.clone_from(bytes),
                SetElementAttribute::Flags(set) => flags = *set,
                other => panic!("{other:?}"),
            }
        }
        (key, flags)
    };
    of_set.unwrap().iter().map(read).collect()
}

/// What the kernel would tell about a ruleset that was just written.
fn dump_of(ruleset: &Ruleset) -> TableDump {
    let mut dump: Option<TableDump> = None;
    for request in encode::replace(ruleset) {
        match (request.message, &mut dump) {
            (NfTablesMessage::NewTable(table), dump) => {
                let (chains, sets, elements, rules) = (vec![], vec![], vec![], vec![]);
                *dump = Some(TableDump { table, chains, sets, elements, rules });
            }
            (NfTablesMessage::NewChain(chain), Some(dump)) => dump.chains.push(chain),
            (NfTablesMessage::NewSet(mut set), Some(dump)) => {
                set.attributes.retain(|attribute| !matches!(attribute, SetAttribute::Id(_)));
                dump.sets.push(set);
            }
            (NfTablesMessage::NewSetElement(part), Some(dump)) => dump.elements.push(part),
            (NfTablesMessage::NewRule(rule), Some(dump)) => dump.rules.push(rule),
            _ => {}
        }
    }
    dump.unwrap()
}
