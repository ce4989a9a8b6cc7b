//! The sidecar's metrics as one table: what is registered, what the documentation lists and what a
//! test compares with both. Called by `Metrics::new` and by the documentation test.
//!
//! Never: holds a value, or a label whose values an outsider may choose without a cap.

// SPDX-License-Identifier: Apache-2.0

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! rows {
    ($($name:ident = $kind:ident $text:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $name: Row =
            Row { name: $text, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every family that `/metrics` can show, in the order of the documentation.
        pub(super) const ROWS: &[Row] = &[$($name),*];
    };
}

rows! {
    HANDSHAKES = Counter "myelin_handshakes_total"
        ["direction", "outcome", "group", "cipher", "resumed"]
        "TLS handshakes with peers, by how they ended.";
    HANDSHAKE_DURATION = Histogram "myelin_handshake_duration_seconds" ["direction"]
        "Time from the first byte of a TLS handshake to its end.";
    OPENED = Counter "myelin_connections_opened_total" ["direction"]
        "Connections that were accepted from the workload (outbound) or from a peer (inbound).";
    CLOSED = Counter "myelin_connections_closed_total"
        ["direction", "outcome", "security", "peer"]
        "Connections that ended, by outcome word, kind of protection and peer.";
    OPEN = Gauge "myelin_connections_open" ["direction"]
        "Connections that are open now.";
    CONNECTION_DURATION = Histogram "myelin_connection_duration_seconds" ["direction"]
        "Life of a connection from accept to close.";
    BYTES = Counter "myelin_connection_bytes_total" ["direction", "security", "flow"]
        "Workload bytes, received or sent as the workload sees it, without TLS and framing.";
    MESH_USES = Counter "myelin_mesh_uses_total" ["kind"]
        "Outbound uses of mesh connections, by where the connection came from.";
    MESH_IDLE = Gauge "myelin_mesh_connections_idle" []
        "Outbound mesh connections that wait for a use.";
    MESH_RETIRED = Counter "myelin_mesh_connections_retired_total" ["reason"]
        "Outbound mesh connections that ended in good order, by why they carry no further use.";
    VERDICTS = Counter "myelin_policy_verdicts_total" ["direction", "verdict"]
        "Answers of policy (inbound) and directory (outbound).";
    POLICY_CONNECTED = Gauge "myelin_policy_connected" []
        "1 while a controller tells this sidecar its policy, else 0.";
    POLICY_SINCE = Gauge "myelin_policy_since_seconds" []
        "When the controller's policy in force was taken, in seconds since the Unix epoch; 0 without one.";
    POLICY_UPDATES = Counter "myelin_policy_updates_total" ["outcome"]
        "Answers of controllers about policy, by what became of them.";
    POLICY_AUDITED = Counter "myelin_policy_audited_total" []
        "Uses that audit rules were about, once for each rule.";
    PLAINTEXT_REFUSED = Counter "myelin_plaintext_refused_total" ["direction"]
        "Connections refused because they would have been plaintext.";
    NOT_BEFORE = Gauge "myelin_svid_not_before_seconds" []
        "Start of the current SVID's validity in seconds since the Unix epoch; 0 before the first.";
    NOT_AFTER = Gauge "myelin_svid_not_after_seconds" []
        "End of the current SVID's validity in seconds since the Unix epoch; 0 before the first.";
    RENEWALS = Counter "myelin_renewals_total" ["outcome"]
        "Attempts to get or renew the SVID.";
    WORKLOAD_NOT_AFTER = Gauge "myelin_workload_svid_not_after_seconds" []
        "End of the workload's own SVID in seconds since the Unix epoch; 0 before the first.";
    WORKLOAD_RENEWALS = Counter "myelin_workload_renewals_total" ["outcome"]
        "Attempts to get an SVID for the workload's own hands.";
    WORKLOAD_STREAMS = Gauge "myelin_workload_api_streams" ["call"]
        "Streams that are open on the workload API's socket.";
    WORKLOAD_ANSWERS = Counter "myelin_workload_api_answers_total" ["call", "outcome"]
        "Answers on the workload API's socket, refusals included.";
    PROBES = Counter "myelin_probes_total" ["kind", "outcome"]
        "Probes of the workload that were run for the kubelet, by how they ended.";
    TRUST_UPDATES = Counter "myelin_trust_updates_total" ["outcome"]
        "Trust bundles (own and foreign) and deny lists that the CA sent, by what became of them.";
    BUNDLE_GENERATION = Gauge "myelin_bundle_generation" []
        "Generation of the trust bundle in use; 0 before the first.";
    FOREIGN_BUNDLES = Gauge "myelin_foreign_bundles" []
        "Foreign trust domains whose peers are verified under a bundle of their own.";
    DENY_EPOCH = Gauge "myelin_deny_list_epoch" []
        "Epoch of the deny list in use.";
    DENY_SAID_AT = Gauge "myelin_deny_list_said_at_seconds" []
        "When the CA last confirmed the deny list, in seconds since the Unix epoch.";
    LOG_PROOFS = Counter "myelin_log_proofs_total" ["direction", "outcome"]
        "Log proofs of peers that were judged, by how; one for each new mesh connection.";
    LOG_CHECKPOINTS = Counter "myelin_log_checkpoints_total" ["outcome"]
        "Checkpoints of issuance logs that were compared with others of their log.";
    LOG_FORKS = Gauge "myelin_log_forks" []
        "Issuance logs that have shown two histories; anything but 0 is an alarm.";
    LOG_ROOTS = Gauge "myelin_log_roots" ["logged"]
        "Roots of the trust bundle, by whether they name an issuance log that peers must be in.";
    READY = Gauge "myelin_ready" []
        "1 while /ready answers 200, else 0.";
    BUILD = Gauge "myelin_build_info" ["version", "profile"]
        "Always 1; the labels say which build runs.";
    CPU = Counter "process_cpu_seconds_total" []
        "User and system CPU time spent.";
    OPEN_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    MAX_FDS = Gauge "process_max_fds" []
        "Limit of open file descriptors.";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Resident memory.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Virtual memory.";
    START = Gauge "process_start_time_seconds" []
        "Start of the process in seconds since the Unix epoch.";
    THREADS = Gauge "process_threads" []
        "Threads of the process.";
}
