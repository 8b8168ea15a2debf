//! What the logger counts, as metrics.

use super::exposition::Exposition;
use super::metrics::Source;
use crate::logging::{Logger, Severity};

impl Source for Logger {
    fn collect(&self, text: &mut Exposition) {
        let stats = self.stats();
        text.gauge(
            "secure_socket_log_queue_lines",
            "Lines that wait for the log writer.",
        )
        .value(stats.queued);
        let mut family = text.counter(
            "secure_socket_log_dropped_lines",
            "Lines that found no room in the queue, by severity.",
        );
        for (number, count) in (0..).zip(stats.dropped) {
            let name = Severity::from_number(number).map(|severity| severity.to_string());
            family.with("severity", name.as_deref().unwrap_or("unknown"), count);
        }
        let mut family = text.counter("secure_socket_log_written_lines", "Lines written, by sink.");
        for sink in &stats.sinks {
            family.with("sink", &sink.name, sink.written);
        }
        let mut family = text.counter("secure_socket_log_lost_lines", "Lines lost, by sink.");
        for sink in &stats.sinks {
            family.with("sink", &sink.name, sink.lost);
        }
        let mut family = text.gauge(
            "secure_socket_log_sink_queue_lines",
            "Lines that wait for a sink.",
        );
        for sink in &stats.sinks {
            family.with("sink", &sink.name, sink.waiting);
        }
    }
}
