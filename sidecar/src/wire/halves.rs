//! The two directions of one running use, and the order in which each may end: data, fin, idle.
//! Called by the course of a connection; nobody else.
//!
//! Never: a way back from fin to data, or to idle before both fins have passed.

// SPDX-License-Identifier: Apache-2.0

/// How far one direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Flowing,
    Fin,
    Idle,
}

/// Our direction and the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halves {
    own: Half,
    peer: Half,
}

impl Halves {
    pub(super) const FLOWING: Self = Self { own: Half::Flowing, peer: Half::Flowing };

    pub(super) fn own_flows(self) -> bool {
        self.own == Half::Flowing
    }

    pub(super) fn peer_flows(self) -> bool {
        self.peer == Half::Flowing
    }

    pub(super) fn own_is_idle(self) -> bool {
        self.own == Half::Idle
    }

    pub(super) fn peer_is_idle(self) -> bool {
        self.peer == Half::Idle
    }

    /// Both fins have passed: every byte of the use went both ways.
    pub(super) fn is_whole(self) -> bool {
        !self.own_flows() && !self.peer_flows()
    }

    /// Our keys are to be refreshed: both fins have passed, our idle was not sent yet.
    pub(super) fn refresh_is_due(self) -> bool {
        self.own == Half::Fin && !self.peer_flows()
    }

    pub(super) fn is_idle(self) -> bool {
        self.own_is_idle() && self.peer_is_idle()
    }

    /// Each of these is the step's result, or `None` if the step is not legal now.
    pub(super) fn after_sending_fin(self) -> Option<Self> {
        self.own_flows().then_some(Self { own: Half::Fin, ..self })
    }

    pub(super) fn after_sending_idle(self) -> Option<Self> {
        self.refresh_is_due().then_some(Self { own: Half::Idle, ..self })
    }

    pub(super) fn after_reading_fin(self) -> Option<Self> {
        self.peer_flows().then_some(Self { peer: Half::Fin, ..self })
    }

    /// The peer sends idle only after it has read our fin, so ours must at least be sent.
    pub(super) fn after_reading_idle(self) -> Option<Self> {
        let legal = self.peer == Half::Fin && !self.own_flows();
        legal.then_some(Self { peer: Half::Idle, ..self })
    }
}
