//! Metrics as text: OpenMetrics 1.0, or Prometheus' older format 0.0.4. Pure.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::fmt::{self, Display, Write};

/// Which text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// OpenMetrics 1.0.
    #[default]
    OpenMetrics,
    /// Prometheus 0.0.4.
    Prometheus,
}

impl Form {
    /// The type of the content, for HTTP.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A text in the making.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    form: Form,
}

impl Exposition {
    /// Nothing yet.
    pub fn new(form: Form) -> Self {
        Self {
            text: String::with_capacity(16 * 1024),
            form,
        }
    }

    /// Begins a family of counters, whose samples end in `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "counter", "_total", help)
    }

    /// Begins a family of gauges.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "gauge", "", help)
    }

    /// Writes a histogram: each bound with how many were at most that, then all,
    /// then their sum.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        self.family(name, "histogram", "", help);
        for (bound, below) in buckets {
            self.push(format_args!("{name}_bucket{{le=\"{bound:?}\"}} {below}\n"));
        }
        self.push(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        self.push(format_args!("{name}_sum {sum}\n{name}_count {count}\n"));
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, name: &str, kind: &str, suffix: &'static str, help: &str) -> Family<'_> {
        // The older format knows no families: there the name is that of the sample.
        let shown = match self.form {
            Form::OpenMetrics => "",
            Form::Prometheus => suffix,
        };
        self.push(format_args!("# TYPE {name}{shown} {kind}\n"));
        let unit = name.rsplit_once('_').map(|(_, unit)| unit);
        if self.form == Form::OpenMetrics
            && let Some(unit @ ("seconds" | "bytes")) = unit
        {
            self.push(format_args!("# UNIT {name} {unit}\n"));
        }
        self.push(format_args!("# HELP {name}{shown} {help}\n"));
        Family {
            name: format!("{name}{suffix}"),
            exposition: self,
        }
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String never fails.
        let _ = self.text.write_fmt(text);
    }
}

/// The samples of one family.
#[derive(Debug)]
pub struct Family<'a> {
    exposition: &'a mut Exposition,
    name: String,
}

impl Family<'_> {
    /// The one sample without labels.
    pub fn value(self, value: impl Display) {
        self.exposition
            .push(format_args!("{} {value}\n", self.name));
    }

    /// A sample with one label. May be repeated, each time with another value of it.
    pub fn with(&mut self, label: &str, text: &str, value: impl Display) -> &mut Self {
        self.exposition.push(format_args!(
            "{}{{{label}=\"{}\"}} {value}\n",
            self.name,
            Escaped(text)
        ));
        self
    }
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other if other.is_control() => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(form: Form) -> String {
        let mut text = Exposition::new(form);
        text.counter("x_seen", "Seen.").value(3);
        text.gauge("x_size_bytes", "Size.")
            .with("kind", "a\"\\\n\u{1b}", 7);
        text.histogram("x_time_seconds", "Time.", &[(0.001, 1), (1.0, 2)], 3, 4.5);
        text.finish()
    }

    #[test]
    fn open_metrics_has_families_units_and_an_end() {
        assert_eq!(
            fill(Form::OpenMetrics),
            "# TYPE x_seen counter\n# HELP x_seen Seen.\nx_seen_total 3\n\
             # TYPE x_size_bytes gauge\n# UNIT x_size_bytes bytes\n# HELP x_size_bytes Size.\n\
             x_size_bytes{kind=\"a\\\"\\\\\\n\u{fffd}\"} 7\n\
             # TYPE x_time_seconds histogram\n# UNIT x_time_seconds seconds\n\
             # HELP x_time_seconds Time.\nx_time_seconds_bucket{le=\"0.001\"} 1\n\
             x_time_seconds_bucket{le=\"1.0\"} 2\nx_time_seconds_bucket{le=\"+Inf\"} 3\n\
             x_time_seconds_sum 4.5\nx_time_seconds_count 3\n# EOF\n"
        );
    }

    #[test]
    fn the_older_format_names_samples() {
        let text = fill(Form::Prometheus);
        assert!(text.starts_with("# TYPE x_seen_total counter\n# HELP x_seen_total Seen.\n"));
        assert!(!text.contains("EOF") && !text.contains("UNIT"));
    }
}
