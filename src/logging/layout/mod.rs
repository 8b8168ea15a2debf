//! How a line looks: text, JSON, RFC 5424, and what a local syslogd reads.
//!
//! A layout renders whole lines, each ended by one line feed and containing no
//! other. What somebody else chose is escaped here, by the rules of the layout.

mod json;
mod syslog;
mod text;
pub(crate) mod time;

use super::line::Line;
use super::{Severity, escape};
use std::borrow::Cow;
use time::{Clock, push_number};

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// syslog's RFC 5424, with structured data.
    Rfc5424,
}

/// What a sink wants its lines to look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    Text,
    /// The same with the severity coloured, for a terminal.
    Coloured,
    /// The same after `<N>`, which systemd's journal takes for the priority.
    Prefixed,
    Json,
    Rfc5424,
    /// RFC 3164 as syslog(3) writes it to `/dev/log`.
    Local,
}

impl From<Format> for Layout {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
            Format::Rfc5424 => Self::Rfc5424,
        }
    }
}

/// The parts of a line that are the same in every line.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    hostname: String,
    app_name: String,
    process: u32,
}

impl Origin {
    /// Names that syslog can't carry are cut and cleaned (RFC 5424, 6.2).
    pub(super) fn new(app_name: &str, hostname: &str) -> Self {
        Self {
            hostname: token(hostname, 255),
            app_name: token(app_name, 48),
            process: std::process::id(),
        }
    }
}

/// At most `most` characters of printable ASCII, `-` if there are none.
fn token(text: &str, most: usize) -> String {
    let token: String = text
        .chars()
        .filter(char::is_ascii_graphic)
        .take(most)
        .collect();
    if token.is_empty() { "-".into() } else { token }
}

/// Renders lines in one layout.
pub(super) struct Renderer {
    layout: Layout,
    origin: Origin,
    clock: Clock,
    escaped: String,
}

impl Renderer {
    pub(super) fn new(layout: Layout, origin: Origin) -> Self {
        Self {
            layout,
            origin,
            clock: Clock::default(),
            escaped: String::new(),
        }
    }

    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }

    /// Appends the line with its number, and a line feed.
    pub(super) fn render(&mut self, line: &Line<'_>, number: u64, out: &mut Vec<u8>) {
        match self.layout {
            Layout::Text => self.text(line, None, out),
            Layout::Coloured => self.text(line, Some(colour(line.severity)), out),
            Layout::Prefixed => {
                out.push(b'<');
                push_number(u64::from(line.severity.syslog()), out);
                out.push(b'>');
                self.text(line, None, out);
            }
            Layout::Json => self.json(line, number, out),
            Layout::Rfc5424 => self.rfc5424(line, number, out),
            Layout::Local => self.local(line, out),
        }
        out.push(b'\n');
    }

    /// Appends the message with the escapes of a text.
    fn push_escaped(&mut self, line: &Line<'_>, out: &mut Vec<u8>) {
        if line.plain {
            out.extend_from_slice(line.message);
            return;
        }
        self.escaped.clear();
        escape::line(&message(line), &mut self.escaped);
        out.extend_from_slice(self.escaped.as_bytes());
    }
}

/// The message. It is UTF-8 as it was cut between characters.
fn message<'a>(line: &Line<'a>) -> Cow<'a, str> {
    String::from_utf8_lossy(line.message)
}

const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Fatal | Severity::Alert | Severity::Critical => "\x1b[1;31m",
        Severity::Error => "\x1b[31m",
        Severity::Warning => "\x1b[33m",
        Severity::Notice => "\x1b[36m",
        Severity::Info => "\x1b[32m",
        Severity::Debug | Severity::Verbose | Severity::Trace | Severity::Wire => "\x1b[2m",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::line::{NO_SCOPE, Origin as LineOrigin};
    use super::super::site::Site;
    use super::*;
    use std::sync::OnceLock;

    fn line(conn: Option<u64>, message: &str) -> Line<'_> {
        fn accept() {}
        static SITE: Site = Site::new(
            Severity::Info,
            "src/server/acceptor.rs",
            88,
            "secure_socket::server",
            || "secure_socket::server::accept::here",
        );
        let _ = accept;
        let origin = LineOrigin::Site(&SITE);
        Line {
            micros: 1_795_429_230_123_456,
            ..Line::new(Severity::Info, NO_SCOPE, conn, origin, message.as_bytes())
        }
    }

    #[track_caller]
    fn check(layout: Layout, line: &Line<'_>, expected: &str) {
        let mut origin = Origin::new("secure_socket", "host");
        origin.process = 812;
        let mut out = Vec::new();
        Renderer::new(layout, origin).render(line, 7, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn a_text_line_is_as_the_contract_shows_it() {
        check(
            Layout::Text,
            &line(Some(17), "peer admitted uid=33 gid=33 pid=812 rule=1"),
            "2026-11-23T10:20:30.123456Z INFO  [conn 17] peer admitted uid=33 gid=33 pid=812 rule=1 \
             (src/server/acceptor.rs:88 accept)",
        );
        check(
            Layout::Prefixed,
            &line(None, "x"),
            "<6>2026-11-23T10:20:30.123456Z INFO  x (src/server/acceptor.rs:88 accept)",
        );
        check(
            Layout::Coloured,
            &line(None, "x"),
            "2026-11-23T10:20:30.123456Z \x1b[32mINFO \x1b[0m x (src/server/acceptor.rs:88 accept)",
        );
    }

    #[test]
    fn what_a_peer_chose_stays_on_its_line() {
        let evil = "a\nb\x1b]0;\x07\u{85}\u{2028}\u{202e}\\\"";
        check(
            Layout::Text,
            &line(None, evil),
            "2026-11-23T10:20:30.123456Z INFO  a\\nb\\x1b]0;\\x07\\u{85}\\u{2028}\\u{202e}\\\\\" \
             (src/server/acceptor.rs:88 accept)",
        );
        check(
            Layout::Json,
            &line(None, evil),
            "{\"time\":\"2026-11-23T10:20:30.123456Z\",\"seq\":7,\"severity\":\"info\",\"level\":6,\
             \"message\":\"a\\nb\\u001b]0;\\u0007\\u0085\\u2028\\u202e\\\\\\\"\",\
             \"module\":\"secure_socket::server\",\"file\":\"src/server/acceptor.rs\",\"line\":88,\
             \"function\":\"accept\",\"pid\":812}",
        );
    }

    /// Who logs from another language, and a program's own records, name any file.
    #[test]
    fn a_place_forges_no_line_and_steers_no_terminal() {
        static SITE: OnceLock<Site> = OnceLock::new();
        let evil = "a\nb\x1b[2J\u{202e}\"]";
        let site = SITE.get_or_init(|| Site::foreign(Severity::Info, evil, 88, evil, evil));
        let named = LineOrigin::Named {
            file: evil,
            line: 88,
            module: evil,
        };
        for origin in [LineOrigin::Site(site), named] {
            let line = Line {
                origin,
                ..line(None, "x")
            };
            for layout in [
                Layout::Text,
                Layout::Prefixed,
                Layout::Json,
                Layout::Rfc5424,
                Layout::Local,
            ] {
                let mut out = Vec::new();
                Renderer::new(layout, Origin::new("x", "y")).render(&line, 7, &mut out);
                let text = String::from_utf8(out).unwrap();
                let text = text.strip_suffix('\n').unwrap();
                let found = text.chars().find(|c| c.is_control() || *c == '\u{202e}');
                assert_eq!(found, None, "{layout:?}: {text:?}");
            }
        }
    }

    #[test]
    fn json_carries_the_connection() {
        check(
            Layout::Json,
            &line(Some(0), "say \"hi\""),
            "{\"time\":\"2026-11-23T10:20:30.123456Z\",\"seq\":7,\"severity\":\"info\",\"level\":6,\
             \"conn\":0,\"message\":\"say \\\"hi\\\"\",\
             \"module\":\"secure_socket::server\",\"file\":\"src/server/acceptor.rs\",\"line\":88,\
             \"function\":\"accept\",\"pid\":812}",
        );
    }

    #[test]
    fn syslog_lines_follow_their_rfcs() {
        check(
            Layout::Rfc5424,
            &line(Some(17), "x\ny"),
            "<30>1 2026-11-23T10:20:30.123456Z host secure_socket 812 accept \
             [meta sequenceId=\"7\"][line@32473 severity=\"info\" level=\"6\" conn=\"17\" \
             module=\"secure_socket::server\" file=\"src/server/acceptor.rs\" line=\"88\"] x\\ny",
        );
        check(
            Layout::Local,
            &line(Some(17), "x"),
            "<30>Nov 23 10:20:30 secure_socket[812]: [conn 17] x (src/server/acceptor.rs:88 accept)",
        );
    }

    #[test]
    fn names_that_syslog_cant_carry_are_cut() {
        assert_eq!(token("a b\nc", 255), "abc");
        assert_eq!(token("ä", 255), "-");
        assert_eq!(token(&"x".repeat(300), 48).len(), 48);
    }
}
