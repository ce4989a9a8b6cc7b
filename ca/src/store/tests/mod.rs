//! What every implementation of `Store` must do, written against the trait, and run here against
//! each of them.
//!
//! Never: reaches around the trait.

// SPDX-License-Identifier: Apache-2.0

use super::{Commit, Expect, Write};

/// Every promise there is, as a test each, of the store that `$scratch` makes.
macro_rules! keeps_all {
    ($scratch:ident) => {
        crate::store::tests::keeps_all! { $scratch:
            values::written_value_is_read_with_its_revision,
            values::several_values_are_read_at_once_in_the_asked_for_order,
            values::commit_with_stale_expectation_writes_nothing,
            values::deleted_and_rewritten_key_does_not_match_its_old_revision,
            values::list_is_ordered_bounded_paged_and_stays_within_its_prefix,
            values::of_many_concurrent_swaps_exactly_one_wins,
            values::many_commits_at_once_have_each_their_own_verdict_and_revision,
            values::oversized_commit_is_refused,
            watches::watch_tells_every_change_of_its_prefix_in_order_and_nothing_else,
            watches::watch_from_an_earlier_revision_misses_nothing,
            leases::lease_has_one_holder_until_it_is_released,
            leases::lease_that_is_not_kept_is_lost_and_one_that_is_kept_is_not,
            leases::holder_that_asks_again_gets_a_new_fence,
            leases::write_under_a_lost_lease_fails,
        }
    };
    ($scratch:ident: $($room:ident::$promise:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let (_kept, store) = $scratch().await;
                crate::store::tests::$room::$promise(store).await;
            }
        )*
    };
}

use keeps_all;

mod embedded;
mod etcd;
mod kubernetes;
mod leases;
mod values;
mod watches;

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.to_owned(), value.as_bytes().to_vec())
}

fn absent(key: &str) -> Expect {
    Expect::Absent(key.to_owned())
}

fn committed(commit: Commit) -> u64 {
    match commit {
        Commit::Committed { revision } => revision,
        Commit::Conflict => panic!("expected to be committed"),
    }
}
