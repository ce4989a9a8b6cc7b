//! Trees and tiles against a naive tree and the values of RFC 6962's test suite.
//! Never: certificates.

// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::super::*;
use crate::x509::unhex32;

/// MTH of RFC 6962 as it is written there.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&naive(left), &naive(right))
        }
    }
}

pub(super) fn naive_node(leaves: &[Hash], node: Node) -> Hash {
    let start = (node.index << node.level) as usize;
    naive(&leaves[start..start + (1 << node.level)])
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// The tiles of a tree, as a log would have written them.
fn read_tiles(leaves: &[Hash], size: u64, node: Node) -> Result<Hash, String> {
    let tile = tile_holding(node, size).ok_or_else(|| format!("{node:?} of {size}"))?;
    let first = tile.index * 256;
    let hashes: Vec<Hash> = (first..first + u64::from(tile.width))
        .map(|index| naive_node(leaves, Node { level: tile.level * 8, index }))
        .collect();
    node_in_tile(node, &hashes).ok_or_else(|| format!("{node:?} in {tile:?}"))
}

#[test]
fn roots_are_those_of_the_certificate_transparency_suite() {
    let entries: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root(), Hash(unhex32(roots[0]).unwrap()));
    for (entry, root) in entries.iter().zip(&roots[1..]) {
        frontier.append(leaf_hash(entry));
        assert_eq!(frontier.root(), Hash(unhex32(root).unwrap()), "{}", frontier.size());
    }
}

#[test]
fn every_leaf_of_every_small_tree_is_proven_and_no_other_is() {
    let all = leaves(40);
    for size in 1..=all.len() as u64 {
        let tree = &all[..size as usize];
        let root = naive(tree);
        for index in 0..size {
            let read = |node| Ok::<_, ()>(naive_node(tree, node));
            let path = inclusion_proof(index, size, read).unwrap().unwrap();
            let leaf = tree[index as usize];
            assert!(verify_inclusion(&leaf, index, size, &path, &root), "{index} of {size}");
            for wrong in (0..size + 2).filter(|wrong| *wrong != index) {
                assert!(!verify_inclusion(&leaf, wrong, size, &path, &root), "{wrong} of {size}");
            }
            assert!(!verify_inclusion(&empty_root(), index, size, &path, &root));
            let mut longer = path.clone();
            longer.push(root);
            assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
            if !path.is_empty() {
                assert!(!verify_inclusion(&leaf, index, size, &path[1..], &root));
            }
        }
    }
    let none = inclusion_proof(5, 5, |_| Err("not to be asked"));
    assert!(none.is_none());
}

#[test]
fn every_growth_of_a_small_tree_is_consistent_and_a_fork_is_not() {
    let all = leaves(34);
    let mut forked = all.clone();
    forked[3] = leaf_hash(b"another");
    let roots = |leaves: &[Hash]| -> Vec<Hash> {
        (0..=leaves.len()).map(|size| naive(&leaves[..size])).collect()
    };
    let (good, fork) = (roots(&all), roots(&forked));
    for new in 0..=all.len() as u64 {
        for old in 0..=new {
            let read = |node| Ok::<_, ()>(naive_node(&all, node));
            let proof = consistency_proof(old, new, read).unwrap().unwrap();
            let (then, now) = (&good[old as usize], &good[new as usize]);
            assert!(verify_consistency(old, then, new, now, &proof), "{old} to {new}");
            let other = &fork[new as usize];
            let same = other == now || old == 0;
            assert_eq!(verify_consistency(old, then, new, other, &proof), same, "{old} to {new}");
            let mut longer = proof.clone();
            longer.push(*now);
            assert!(!verify_consistency(old, then, new, now, &longer), "{old} to {new}");
            if !proof.is_empty() {
                assert!(!verify_consistency(old, then, new, now, &proof[1..]), "{old} to {new}");
            }
        }
        assert!(consistency_proof(new + 1, new, |_| Err(())).is_none());
    }
}

#[test]
fn frontier_that_was_kept_goes_on_and_one_of_another_size_is_refused() {
    let all = leaves(300);
    let mut frontier = Frontier::default();
    for (index, leaf) in all.iter().enumerate() {
        let size = index as u64 + 1;
        let path = frontier.path_of_next();
        let complete = frontier.append(*leaf);
        assert!(verify_inclusion(leaf, index as u64, size, &path, &frontier.root()), "{index}");
        for (node, hash) in complete {
            assert_eq!(hash, naive_node(&all, node), "{node:?}");
        }
        let peaks = frontier.peaks().to_vec();
        for (node, peak) in Frontier::peak_nodes(size).into_iter().zip(&peaks) {
            assert_eq!(*peak, naive_node(&all, node));
        }
        assert_eq!(Frontier::new(size, peaks.clone()).unwrap(), frontier);
        assert!(Frontier::new(size, [peaks, vec![empty_root()]].concat()).is_err());
    }
    assert_eq!(frontier.root(), naive(&all));
}

#[test]
fn tiles_of_a_tree_of_seventy_thousand_are_those_of_the_specification() {
    let expected = [
        Tile { level: 0, index: 273, width: 112 },
        Tile { level: 1, index: 1, width: 17 },
        Tile { level: 2, index: 0, width: 1 },
    ];
    assert_eq!(Tile::partial_of(70_000), expected);
    assert_eq!(Tile::partial_of(256), [Tile { level: 1, index: 0, width: 1 }]);
    assert_eq!(Tile::partial_of(0), []);
}

#[test]
fn nodes_that_a_tree_does_not_have_are_in_no_tile() {
    for (level, index, size) in
        [(0, 5, 5), (3, 0, 7), (9, 1, 1023), (63, 1, u64::MAX), (63, u64::MAX, u64::MAX), (0, 0, 0)]
    {
        assert_eq!(tile_holding(Node { level, index }, size), None, "{level} {index} {size}");
    }
    assert!(tile_holding(Node { level: 9, index: 1 }, 1024).is_some());
    assert_eq!(node_in_tile(Node { level: 1, index: 1 }, &[empty_root(); 3]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn proofs_out_of_tiles_hold_in_trees_of_several_tiles(
        size in 1_u64..1200, part in 0_u64..1200, other in 0_u64..1200,
    ) {
        let all = leaves(size);
        let root = naive(&all);
        let (index, old) = (part % size, other % (size + 1));
        let path = inclusion_proof(index, size, |node| read_tiles(&all, size, node)).unwrap().unwrap();
        prop_assert!(verify_inclusion(&all[index as usize], index, size, &path, &root));
        let proof = consistency_proof(old, size, |node| read_tiles(&all, size, node)).unwrap().unwrap();
        prop_assert!(verify_consistency(old, &naive(&all[..old as usize]), size, &root, &proof));
        let again = root_of(size, |node| read_tiles(&all, size, node)).unwrap();
        prop_assert_eq!(again, root);
    }

    #[test]
    fn no_proof_of_random_hashes_is_believed(
        size in 1_u64..u64::MAX / 2, index: u64, hashes in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let path: Vec<Hash> = hashes.into_iter().map(Hash).collect();
        let (leaf, root) = (leaf_hash(b"leaf"), leaf_hash(b"root"));
        prop_assert!(!verify_inclusion(&leaf, index, size, &path, &root));
        prop_assert!(!verify_consistency(index % size, &leaf, size, &root, &path));
    }
}
