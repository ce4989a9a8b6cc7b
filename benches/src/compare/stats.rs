//! Medians, percentiles, and ratios that are taken round by round. Called by `load`, for the
//! latencies of a window, and by `report`.
//!
//! Never: a mean; one disturbed window would move it.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

/// Middle, smallest and largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, least, most })
    }
}

/// The smallest value that at least `share` of all values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// `ours / theirs` of each round that has both.
pub(crate) fn ratios(ours: &BTreeMap<usize, f64>, theirs: &BTreeMap<usize, f64>) -> Vec<f64> {
    let pairs = ours.iter().filter_map(|(round, our)| Some((our, theirs.get(round)?)));
    pairs.filter(|(_, their)| **their > 0.0).map(|(our, their)| our / their).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert_eq!(Spread::of(&[]), None);
        let spread = |values: &[f64]| Spread::of(values).unwrap();
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Spread { median: 3.0, least: 1.0, most: 9.0 });
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]).median, 3.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&values, 0.5), Some(100));
        assert_eq!(percentile(&values, 0.99), Some(198));
        assert_eq!(percentile(&values, 1.0), Some(200));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_ratio_needs_both_sides_in_one_round() {
        let ours = BTreeMap::from([(0, 2.0), (1, 9.0), (2, 3.0)]);
        let theirs = BTreeMap::from([(0, 4.0), (2, 1.0), (3, 5.0)]);
        assert_eq!(ratios(&ours, &theirs), [0.5, 3.0]);
    }

    /// The machine became twice as slow in round 1 for everybody: the ratio does not move.
    #[test]
    fn a_slow_round_does_not_move_a_ratio() {
        let ours = BTreeMap::from([(0, 10.0), (1, 20.0), (2, 10.0)]);
        let theirs = BTreeMap::from([(0, 20.0), (1, 40.0), (2, 20.0)]);
        assert_eq!(Spread::of(&ratios(&ours, &theirs)).unwrap().median, 0.5);
    }
}
