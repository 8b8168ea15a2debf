//! Which walls stand, for the log and for `check`.

use std::borrow::Cow;
use std::fmt;

/// How a wall stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Whole.
    Enforced,
    /// Weaker than it could be.
    Degraded,
    /// Not at all.
    Off,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforced => "enforced",
            Self::Degraded => "degraded",
            Self::Off => "off",
        })
    }
}

/// One wall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wall {
    /// `identity`, `capabilities`, `no_new_privs`, `landlock`, `seccomp`, ...
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Why, or what it consists of; may be empty.
    pub detail: Cow<'static, str>,
}

/// All walls, in the order in which they are put up. Displays as one line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    walls: Vec<Wall>,
}

impl Report {
    pub(super) fn add(
        &mut self,
        name: &'static str,
        standing: Standing,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.walls.push(Wall {
            name,
            standing,
            detail: detail.into(),
        });
    }

    /// The walls.
    pub fn walls(&self) -> &[Wall] {
        &self.walls
    }

    /// Whether every wall is whole.
    pub fn is_whole(&self) -> bool {
        self.walls
            .iter()
            .all(|wall| wall.standing == Standing::Enforced)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, wall) in self.walls.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{} {}", wall.name, wall.standing)?;
            if !wall.detail.is_empty() {
                write!(f, " ({})", wall.detail)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let mut report = Report::default();
        report.add("no_new_privs", Standing::Enforced, "");
        assert!(report.is_whole());
        report.add("landlock", Standing::Degraded, "ABI 2");
        assert!(!report.is_whole());
        assert_eq!(
            report.to_string(),
            "no_new_privs enforced; landlock degraded (ABI 2)"
        );
    }
}
