//! The lines of a batch as some of the sinks want them: in one layout, down to
//! one severity, with numbers of their own.
//!
//! Invariant: the numbers of an edition have no gap but where a line is missing
//! that was for it: what the queue dropped takes numbers too.

use super::Severity;
use super::layout::{Layout, Renderer};
use super::line::Line;
use super::lines::Lines;
use super::loss::Loss;
use super::thresholds::{Gate, Thresholds};

/// See the module.
pub(super) struct Edition {
    renderer: Renderer,
    gate: Gate,
    /// That of the last line.
    number: u64,
    lines: Lines,
}

impl Edition {
    /// `level` is that of the sinks that get this edition, if they have one.
    pub(super) fn new(renderer: Renderer, level: Option<u8>) -> Self {
        Self {
            renderer,
            gate: Gate { base: 0, level },
            number: 0,
            lines: Lines::default(),
        }
    }

    /// Whether sinks of this layout and this level get this edition.
    pub(super) fn is_for(&self, layout: Layout, level: Option<u8>) -> bool {
        self.renderer.layout() == layout && self.gate.level == level
    }

    /// Puts the logger's threshold of now in force.
    pub(super) fn set_base(&mut self, base: u8) {
        self.gate.base = base;
    }

    /// Renders a line, if it is for this edition.
    pub(super) fn take(&mut self, line: &Line<'_>) {
        if self.gate.admits(line.severity, line.scope) {
            self.number += 1;
            self.renderer
                .render(line, self.number, &mut self.lines.bytes);
            self.lines.end_line(line);
        }
    }

    /// Passes over the numbers of lines that the queue dropped.
    pub(super) fn skip(&mut self, loss: &Loss, thresholds: &Thresholds) {
        let threshold = thresholds.of_dropped(self.gate.level);
        let counts = Severity::ALL.into_iter().zip(loss.by_severity());
        let ours = counts.filter(|(severity, _)| severity.number() < threshold);
        self.number += ours.map(|(_, count)| count).sum::<u64>();
    }

    /// The lines since the last `clear`.
    pub(super) const fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verbosity;
    use super::super::layout::Origin;
    use super::super::line::{self, NO_SCOPE};
    use super::*;

    #[track_caller]
    fn check(level: Option<u8>, scopes: &[u8], missing: u64) {
        let scopes = scopes
            .iter()
            .map(|scope| ("m".into(), Verbosity::from_threshold(*scope)));
        let base = Verbosity::up_to(Severity::Info);
        let thresholds = Thresholds::new(base, scopes.collect(), vec![level]);
        let mut edition = Edition::new(Renderer::new(Layout::Json, Origin::new("x", "y")), level);
        edition.set_base(thresholds.base());
        let mut loss = Loss::default();
        for severity in [Severity::Error, Severity::Info, Severity::Debug] {
            loss.add(severity, 1);
        }
        edition.skip(&loss, &thresholds);
        let nowhere = line::Origin::Named {
            file: "",
            line: 0,
            module: "",
        };
        edition.take(&Line::new(
            Severity::Critical,
            NO_SCOPE,
            None,
            nowhere,
            b"x",
        ));
        let text = String::from_utf8_lossy(&edition.lines().bytes).into_owned();
        let number = format!("\"seq\":{},", missing + 1);
        assert!(text.contains(&number), "{text}");
    }

    #[test]
    fn lines_that_were_dropped_take_numbers_where_they_were_wanted() {
        check(None, &[], 2);
        check(None, &[4], 2);
        check(None, &[8], 3);
        check(Some(4), &[], 1);
        check(Some(4), &[8], 1);
        check(Some(8), &[], 3);
        check(Some(3), &[], 0);
    }
}
