//! Medians, spread, ratios to the limit, aims; as Markdown.

use std::fmt::Write;

use super::contestants::OURS;

/// One kind of figure: for each contestant a value of each round.
pub struct Series {
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Series {
    pub fn new(names: &[&'static str]) -> Self {
        Self {
            figures: names.iter().map(|name| (*name, Vec::new())).collect(),
        }
    }

    pub fn push(&mut self, name: &str, figure: f64) {
        let found = self.figures.iter_mut().find(|(known, _)| *known == name);
        found.unwrap().1.push(figure);
    }

    fn rounds(&self, name: &str) -> Option<&[f64]> {
        let found = self.figures.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, rounds)| &rounds[..])
            .filter(|rounds| !rounds.is_empty())
    }

    /// The median over the rounds of one contestant's share of another's figure.
    pub fn ratio(&self, name: &str, to: &str) -> Option<f64> {
        let ratios = self.rounds(name)?.iter().zip(self.rounds(to)?);
        Some(median(ratios.map(|(one, other)| one / other).collect()))
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        self.rounds(name).map(|rounds| median(rounds.to_vec()))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.figures.iter().map(|(name, _)| *name)
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The text so far, and the aims that were looked at.
#[derive(Default)]
pub struct Report {
    text: String,
    columns: Vec<&'static str>,
    aims: Vec<String>,
}

impl Report {
    pub fn heading(&mut self, title: &str) {
        let _ = write!(self.text, "\n## {title}\n");
        self.columns.clear();
    }

    pub fn prose(&mut self, text: &str) {
        let _ = write!(self.text, "\n{text}\n");
        self.columns.clear();
    }

    /// A row: for each contestant the median, in brackets the least and the most.
    pub fn row(&mut self, title: &str, series: &Series) {
        let columns: Vec<_> = series.names().collect();
        if columns != self.columns {
            let _ = write!(self.text, "\n| |");
            for name in &columns {
                let _ = write!(self.text, " {} |", shown(name));
            }
            let _ = write!(self.text, "\n|---|");
            let _ = writeln!(self.text, "{}", "---|".repeat(columns.len()));
            self.columns = columns;
        }
        let _ = write!(self.text, "| {title} |");
        for name in series.names() {
            let Some(rounds) = series.rounds(name) else {
                let _ = write!(self.text, " |");
                continue;
            };
            let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
            let most = rounds.iter().copied().fold(0.0, f64::max);
            let middle = median(rounds.to_vec());
            let _ = write!(
                self.text,
                " {} ({}-{}) |",
                number(middle),
                number(least),
                number(most)
            );
        }
        let _ = writeln!(self.text);
    }

    /// An aim, what was found, and whether that meets it.
    pub fn aim(&mut self, aim: &str, found: &str, met: bool) {
        let verdict = if met { "met" } else { "missed" };
        self.aims.push(format!("| {aim} | {found} | {verdict} |"));
    }

    pub fn finish(self) -> String {
        let mut text = String::from(
            "# Echo\n\nMade by `cargo bench --bench echo`: medians of interleaved rounds, in \
             brackets the least and the most. The daemon runs with policy, sandbox and log as \
             they are by default.\n",
        );
        if !self.aims.is_empty() {
            text.push_str("\n## Aims\n\n| aim | found | |\n|---|---|---|\n");
            for aim in &self.aims {
                text.push_str(aim);
                text.push('\n');
            }
        }
        text.push_str(&self.text);
        text
    }
}

/// What a contestant is called in a heading.
fn shown(name: &str) -> String {
    match OURS.contains(&name) {
        true => format!("threads={name}"),
        false => name.split(" /").next().unwrap_or(name).to_owned(),
    }
}

fn number(figure: f64) -> String {
    match figure {
        _ if figure >= 100.0 => format!("{figure:.0}"),
        _ if figure >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}
