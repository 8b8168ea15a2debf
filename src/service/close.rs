//! Why a connection ends.

use std::fmt;

/// Why a connection ended. The peer sees only that it did; log, trail and
/// metrics carry the [`code`](Self::code).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer, or both sides of a relay, finished in order.
    Finished,
    /// The peer reset the connection, or vanished with data unread.
    PeerReset,
    /// Nothing came within `first_byte_timeout`.
    FirstByteTimeout,
    /// Nothing moved for `idle_timeout`.
    IdleTimeout,
    /// The peer took nothing for `write_timeout`.
    WriteTimeout,
    /// One direction had ended and the other did not within `half_close_timeout`.
    HalfCloseTimeout,
    /// `max_lifetime` is over.
    MaxLifetime,
    /// The authorised process exited (`session_ends_with_peer`).
    PeerExited,
    /// The process runs another executable than the one that was authorised.
    ExecutableChanged,
    /// A reload took the right to be here.
    NoLongerAdmitted,
    /// The server stops and `stop_timeout` is over.
    Stopping,
    /// The peer broke the protocol of the service.
    ProtocolError,
    /// A quota of the service was exceeded.
    QuotaExceeded,
    /// The peer sent file descriptors where none are accepted.
    DescriptorsRefused,
    /// A message was larger than the service takes (`SOCK_SEQPACKET`).
    MessageTooLarge,
    /// `process_proof` was not given, late, or by another process.
    ProofFailed,
    /// No upstream could be reached.
    UpstreamDown,
    /// The upstream reset the connection.
    UpstreamReset,
    /// The service failed with an error of its own or of the system.
    ServiceError,
    /// The service panicked.
    ServicePanicked,
}

impl CloseReason {
    /// The stable name, as logs, trail and metrics use it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::PeerReset => "peer_reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::MaxLifetime => "max_lifetime",
            Self::PeerExited => "peer_exited",
            Self::ExecutableChanged => "executable_changed",
            Self::NoLongerAdmitted => "no_longer_admitted",
            Self::Stopping => "stopping",
            Self::ProtocolError => "protocol_error",
            Self::QuotaExceeded => "quota_exceeded",
            Self::DescriptorsRefused => "descriptors_refused",
            Self::MessageTooLarge => "message_too_large",
            Self::ProofFailed => "proof_failed",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamReset => "upstream_reset",
            Self::ServiceError => "service_error",
            Self::ServicePanicked => "service_panicked",
        }
    }

    /// All of them, in the order of [`index`](Self::index).
    pub const ALL: [Self; 20] = [
        Self::Finished,
        Self::PeerReset,
        Self::FirstByteTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::HalfCloseTimeout,
        Self::MaxLifetime,
        Self::PeerExited,
        Self::ExecutableChanged,
        Self::NoLongerAdmitted,
        Self::Stopping,
        Self::ProtocolError,
        Self::QuotaExceeded,
        Self::DescriptorsRefused,
        Self::MessageTooLarge,
        Self::ProofFailed,
        Self::UpstreamDown,
        Self::UpstreamReset,
        Self::ServiceError,
        Self::ServicePanicked,
    ];

    /// A small number for tables of counters: the place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        Self::ALL
            .iter()
            .position(|reason| *reason == self)
            .unwrap_or(0)
    }

    /// Takes back what [`index`](Self::index) gave.
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }

    /// Whether it is a sign of a peer that wastes the server's resources.
    pub const fn is_abuse(self) -> bool {
        matches!(
            self,
            Self::FirstByteTimeout
                | Self::WriteTimeout
                | Self::ProtocolError
                | Self::QuotaExceeded
                | Self::DescriptorsRefused
                | Self::MessageTooLarge
                | Self::ProofFailed
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_index_and_code() {
        let mut codes = std::collections::HashSet::new();
        for (place, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert_eq!(CloseReason::from_index(place), Some(*reason));
            assert!(codes.insert(reason.code()), "{reason} twice");
        }
        assert_eq!(CloseReason::from_index(CloseReason::ALL.len()), None);
    }
}
