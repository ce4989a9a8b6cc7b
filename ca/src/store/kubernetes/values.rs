//! Keys and values as they rest: a value that is too long for one commit rests in parts under keys of
//! their own, and the key itself says only where. Pure.
//!
//! Never: a value of which a part is missing.

// SPDX-License-Identifier: Apache-2.0

/// In front of what callers call a key.
pub(super) const RECORDS: &str = "k/";
/// In front of a lease's name.
pub(super) const LEASES: &str = "l/";
/// In front of the parts of long values.
pub(super) const PARTS: &str = "p/";
/// In front of what stands beside parts that nothing names yet.
pub(super) const MARKERS: &str = "u/";

/// The first byte of what rests: the value follows.
const WHOLE: u8 = 0;
/// It rests in parts: their name, and how many they are, follow.
const IN_PARTS: u8 = 1;

pub(super) fn record(key: &str) -> String {
    format!("{RECORDS}{key}")
}

pub(super) fn lease(name: &str) -> String {
    format!("{LEASES}{name}")
}

pub(super) fn part(name: u64, number: u32) -> String {
    format!("{PARTS}{name:016x}/{number:04}")
}

/// What stands beside the parts of this name.
pub(super) fn marker(name: u64) -> String {
    format!("{MARKERS}{name:016x}")
}

/// What the keys of the parts beside this marker begin with.
pub(super) fn parts_beside(marker: &str) -> String {
    format!("{PARTS}{}/", &marker[MARKERS.len()..])
}

/// A value as it rests whole.
pub(super) fn resting(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 1);
    bytes.push(WHOLE);
    bytes.extend_from_slice(value);
    bytes
}

/// What rests in its place if the value is in parts.
pub(super) fn in_parts(name: u64, count: u32) -> Vec<u8> {
    let mut bytes = vec![IN_PARTS];
    bytes.extend_from_slice(&name.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes
}

/// Name and number of the parts, if it rests in parts.
pub(super) fn parts(resting: &[u8]) -> Option<(u64, u32)> {
    let (name, count) = resting.strip_prefix(&[IN_PARTS])?.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*name), u32::from_le_bytes(*count.first_chunk::<4>()?)))
}

/// The keys of the parts of what rests there.
pub(super) fn keys_of_parts(resting: &[u8]) -> Vec<String> {
    let (name, count) = parts(resting).unwrap_or_default();
    (0..count).map(|number| part(name, number)).collect()
}

/// The value that rests there. None: something of it is not there.
pub(super) fn whole<'a>(
    resting: &[u8],
    part: impl Fn(&str) -> Option<&'a [u8]>,
) -> Option<Vec<u8>> {
    if let Some(value) = resting.strip_prefix(&[WHOLE]) {
        return Some(value.to_vec());
    }
    parts(resting)?;
    let mut value = Vec::new();
    for key in keys_of_parts(resting) {
        value.extend_from_slice(part(&key)?.strip_prefix(&[WHOLE])?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_read_as_it_was_written_or_not_at_all() {
        assert_eq!(whole(&resting(b"abc"), |_| None).unwrap(), b"abc");
        let parted = in_parts(7, 2);
        assert_eq!(keys_of_parts(&parted), ["p/0000000000000007/0000", "p/0000000000000007/0001"]);
        assert!(part(7, 1).starts_with(&parts_beside(&marker(7))));
        assert!(!part(0x70, 1).starts_with(&parts_beside(&marker(7))));
        let (one, two) = (resting(b"ab"), resting(b"c"));
        let both = |key: &str| Some(if key.ends_with("0") { one.as_slice() } else { &two });
        assert_eq!(whole(&parted, both).unwrap(), b"abc");
        let half = |key: &str| key.ends_with("0").then_some(one.as_slice());
        assert_eq!(whole(&parted, half), None);
        assert_eq!(whole(&[], |_| None), None);
        assert!(keys_of_parts(&one).is_empty());
    }
}
