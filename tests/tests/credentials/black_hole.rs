//! T48: half a minute in which the CA is a black hole, then a port that hangs up. A fleet asks again
//! in bounds and in its own time, goes on asking, and does not come back all at once.
//!
//! Never: restarts a sidecar, or a bound that a slow machine would break.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::time::sleep;

use crate::ca::{Ca, WEB};
use crate::relay::Relay;
use crate::sidecar::{Sidecar, eventually};

const FLEET: usize = 8;
/// A life of twelve seconds: an attempt may take three, and a wait is 0.6 to 1.2.
const LIFE: Duration = Duration::from_secs(12);
const SILENCE: Duration = Duration::from_secs(20);
const HUNG_UP: Duration = Duration::from_secs(10);
/// One sidecar's calls for its SVID and for its watch, if each attempt into the silence took two
/// seconds and no wait followed; it goes on for as long as it lasts.
const MOST_INTO_SILENCE: usize = 2 * 10;
/// The same while each call is hung up at once: only the waits hold it back. Without them it would
/// be thousands.
const MOST_WHILE_HUNG_UP: usize = 2 * 20;
/// For its SVID and its watch, and once more if the first came too early.
const MOST_ON_RETURN: usize = 4;

#[tokio::test]
async fn fleet_asks_into_a_black_hole_in_bounds_and_comes_back_without_a_stampede() {
    let ca = Ca::start(LIFE).await;
    let relay = Relay::start(ca.address()).await;
    let state = tempfile::tempdir().unwrap();
    let mut fleet = Vec::new();
    for number in 0..FLEET {
        let token = ca.token(WEB, &format!("10.0.0.{}", number + 1)).await;
        let state = state.path().join(number.to_string());
        fleet.push(Sidecar::start(relay.address(), &state, Some(token)));
    }
    for sidecar in &fleet {
        sidecar.first_svid().await;
    }

    relay.fall_silent();
    relay.calls();
    sleep(SILENCE).await;
    let calls = relay.calls().len();
    assert!((FLEET * 2..=FLEET * MOST_INTO_SILENCE).contains(&calls), "silence: {calls} calls");
    relay.hang_up();
    sleep(HUNG_UP).await;
    let calls = relay.calls().len();
    assert!((FLEET * 2..=FLEET * MOST_WHILE_HUNG_UP).contains(&calls), "hung up: {calls} calls");
    for sidecar in &fleet {
        assert!(sidecar.is_running());
        assert!(sidecar.store.usable(sidecar.now()).is_err(), "the SVID outlived its life");
    }

    relay.cut_and_pass_on();
    eventually("all are back", async || {
        fleet.iter().all(|sidecar| sidecar.store.usable(sidecar.now()).is_ok())
    })
    .await;
    let calls = relay.calls();
    assert!(calls.len() <= FLEET * MOST_ON_RETURN, "return: {} calls", calls.len());
    // They waited for different times: had they come together, it would be one instant.
    let spread = *calls.last().unwrap() - calls[0];
    assert!(spread > Duration::from_millis(100), "all came within {spread:?}");
    assert_eq!(ca.deny_epoch(), 0, "coming back is no alarm");
}
