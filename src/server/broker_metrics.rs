//! What the broker counts, as metrics.

use std::sync::Arc;

use super::exposition::Exposition;
use super::metrics::Source;
use crate::service::broker::Broker;

impl Source for Arc<Broker> {
    fn collect(&self, text: &mut Exposition) {
        let stats = self.stats();
        text.counter(
            "secure_socket_broker_frames",
            "Messages, requests and answers that were passed on.",
        )
        .value(stats.sequenced);
        text.gauge(
            "secure_socket_broker_members",
            "Connections that have joined.",
        )
        .value(stats.members);
        text.gauge(
            "secure_socket_broker_pending_bytes",
            "Bytes that wait for peers to take them.",
        )
        .value(stats.pending_bytes);
        text.gauge(
            "secure_socket_broker_subscriptions",
            "Subscriptions that are open.",
        )
        .value(stats.subscriptions);
        text.gauge(
            "secure_socket_broker_registrations",
            "Registrations that are open.",
        )
        .value(stats.registrations);
        text.gauge("secure_socket_broker_requests", "Requests that are open.")
            .value(stats.requests);
    }
}
