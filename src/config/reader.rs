//! From what was given to typed values, one option at a time.
//!
//! - A value that does not parse is reported at its place, and the default
//!   stands in for it, so that the rest can be looked at as well.
//! - What was read is kept as text beside where it came from: that is what
//!   `check` prints.

use std::time::Duration;

use super::diagnostics::Diagnostics;
use super::given::{Given, Wrong};
use super::key::{Arity, Key, Kind, Preset, Table};
use super::place::Place;
use super::values;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the table of options.
    Default,
    /// From other options or the surroundings, as told here.
    Follows(String),
    /// From the command line or the file.
    Given(Place),
}

impl Origin {
    /// The place, if it was given.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Given(place) => Some(place.clone()),
            Self::Default | Self::Follows(_) => None,
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

/// What is in force for one option, as text.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The option.
    pub key: &'static Key,
    /// Its values and where each came from; none where it is off.
    pub values: Vec<Sourced<String>>,
    /// Why it has no effect, where it has none.
    pub idle: Option<String>,
}

/// Reads options one by one.
pub(crate) struct Reader<'a> {
    table: Table,
    given: &'a [Given],
    failed: Vec<&'static str>,
    idle: Vec<(String, String)>,
    pub(crate) diagnostics: Diagnostics,
    effective: Vec<Effective>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: Table, given: &'a [Given]) -> Self {
        Self {
            table,
            given,
            failed: Vec::new(),
            idle: Vec::new(),
            diagnostics: Diagnostics::default(),
            effective: Vec::new(),
        }
    }

    /// What was read, in the order of the table.
    pub(crate) fn finish(self) -> (Vec<Effective>, Diagnostics) {
        let (table, mut effective) = (self.table, self.effective);
        for one in &mut effective {
            let idle = self.idle.iter().find(|(name, _)| name == one.key.name);
            one.idle = idle.map(|(_, why)| why.clone());
        }
        effective.sort_by_cached_key(|one| table.keys().position(|key| key.name == one.key.name));
        (effective, self.diagnostics)
    }

    /// Where the option was given, if it was.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        self.find(name).map(Given::place)
    }

    /// Whether the option was given.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether the option was given and is no value.
    pub(crate) fn has_failed(&self, name: &str) -> bool {
        self.failed.contains(&name)
    }

    /// What the table says about an option.
    pub(crate) fn kind(&self, name: &str) -> Option<Kind> {
        self.table.find(name).map(|key| key.kind)
    }

    fn find(&self, name: &str) -> Option<&'a Given> {
        self.given.iter().find(|given| given.key.name == name)
    }

    /// An option with a default. `None` only if the table's default is no value,
    /// which a test excludes.
    pub(crate) fn one<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let key = self.table.find(name)?;
        let Preset::Value(preset) = key.preset else {
            return None;
        };
        if let Some(found) = self.parse_given(key, &parse) {
            return Some(found.value);
        }
        self.record(
            key,
            vec![Sourced {
                value: preset.to_owned(),
                origin: Origin::Default,
            }],
        );
        parse(preset).ok()
    }

    /// An option without a fixed default: what was given, if something was.
    /// `none` is nothing where the option is off by default.
    pub(crate) fn maybe<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Sourced<T>> {
        let key = self.table.find(name)?;
        if let Some(given) = self
            .find(name)
            .filter(|g| key.takes_none() && g.text == "none")
        {
            let origin = Origin::Given(given.place());
            self.record(
                key,
                vec![Sourced {
                    value: "none".to_owned(),
                    origin,
                }],
            );
            return None;
        }
        let found = self.parse_given(key, &parse);
        if found.is_none() {
            self.record(key, Vec::new());
        }
        found
    }

    fn parse_given<T>(
        &mut self,
        key: &'static Key,
        parse: &impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Sourced<T>> {
        let given = self.find(key.name)?;
        let origin = Origin::Given(given.place());
        match parse(&given.text) {
            Ok(value) => {
                let text = Sourced {
                    value: given.text.clone(),
                    origin: origin.clone(),
                };
                self.record(key, vec![text]);
                Some(Sourced { value, origin })
            }
            Err(wrong) => {
                self.wrong(given, wrong);
                None
            }
        }
    }

    /// A list, or an option that may be repeated: each value and its place. The
    /// parser gets the text of one entry.
    pub(crate) fn many<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<Sourced<T>> {
        let Some(key) = self.table.find(name) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut texts = Vec::new();
        let mut failed = false;
        for given in self.given.iter().filter(|given| given.key.name == name) {
            let entries = match key.arity {
                Arity::List => entries(&given.text),
                Arity::Once | Arity::Repeated => vec![(0, given.text.as_str())],
            };
            for (at, entry) in entries {
                let place = given.place_of(at..at + entry.len(), at);
                let result = match entry.is_empty() {
                    true => Err(Wrong::expected(&expected(key), entry, 0)),
                    false => parse(entry),
                };
                match result {
                    Ok(value) => found.push(Sourced {
                        value,
                        origin: Origin::Given(place),
                    }),
                    Err(wrong) => {
                        failed = true;
                        self.wrong(given, wrong.moved(at));
                    }
                }
            }
            let origin = Origin::Given(given.place());
            texts.push(Sourced {
                value: given.text.clone(),
                origin,
            });
        }
        if let (Preset::Value(preset), true) = (key.preset, texts.is_empty() || failed) {
            texts = vec![Sourced {
                value: preset.to_owned(),
                origin: Origin::Default,
            }];
            let defaults = entries(preset)
                .into_iter()
                .filter_map(|(_, entry)| parse(entry).ok());
            found = defaults
                .map(|value| Sourced {
                    value,
                    origin: Origin::Default,
                })
                .collect();
        }
        self.record(key, texts);
        found
    }

    /// A number within the bounds of the table.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Option<T> {
        let Kind::Number { min, max } = self.table.find(name)?.kind else {
            return None;
        };
        let value = self.one(name, |text| values::number(text, min, max))?;
        T::try_from(value).ok()
    }

    /// A size within the bounds of the table, in bytes.
    pub(crate) fn size(&mut self, name: &str) -> Option<u64> {
        let Kind::Size { min, max } = self.table.find(name)?.kind else {
            return None;
        };
        self.one(name, |text| values::size(text, min, max))
    }

    /// A time within the bounds of the table.
    pub(crate) fn duration(&mut self, name: &str) -> Option<Duration> {
        let Kind::Duration { min, max } = self.table.find(name)?.kind else {
            return None;
        };
        self.one(name, |text| values::duration(text, min, max))
    }

    /// A time within the bounds of the table; `None` for 0, which is no limit.
    pub(crate) fn timeout(&mut self, name: &str) -> Option<Option<Duration>> {
        let time = self.duration(name)?;
        Some((!time.is_zero()).then_some(time))
    }

    /// Yes or no.
    pub(crate) fn yes_no(&mut self, name: &str) -> Option<bool> {
        self.one(name, values::yes_no)
    }

    /// Puts down what follows from other options where this one was not given.
    pub(crate) fn follows(&mut self, name: &str, value: impl Into<String>, because: &str) {
        let Some(key) = self.table.find(name) else {
            return;
        };
        let origin = Origin::Follows(because.to_owned());
        self.record(
            key,
            vec![Sourced {
                value: value.into(),
                origin,
            }],
        );
    }

    /// Says that an option has no effect, and warns if it was given.
    pub(crate) fn idle(&mut self, name: &str, why: &str) {
        if let Some(place) = self.place(name) {
            self.diagnostics
                .warning(Some(place), name, format!("has no effect: {why}"));
        }
        self.idle.push((name.to_owned(), why.to_owned()));
    }

    /// An error at the place where this option was given, or without a place.
    pub(crate) fn error(&mut self, name: &str, text: impl Into<String>) {
        self.diagnostics.error(self.place(name), name, text);
    }

    /// A warning at the place where this option was given, or without a place.
    pub(crate) fn warning(&mut self, name: &str, text: impl Into<String>) {
        self.diagnostics.warning(self.place(name), name, text);
    }

    fn wrong(&mut self, given: &Given, wrong: Wrong) {
        let place = given.place_of(wrong.bytes, wrong.caret);
        self.failed.push(given.key.name);
        self.diagnostics
            .error(Some(place), given.key.name, wrong.text);
    }

    fn record(&mut self, key: &'static Key, values: Vec<Sourced<String>>) {
        self.effective.retain(|one| one.key.name != key.name);
        self.effective.push(Effective {
            key,
            values,
            idle: None,
        });
    }
}

/// The entries of a list, without blanks around them, and the byte at which
/// each begins. A comma behind a backslash belongs to its entry.
fn entries(text: &str) -> Vec<(usize, &str)> {
    let mut entries = Vec::new();
    let (mut from, mut escaped) = (0, false);
    let ends = text.char_indices().chain([(text.len(), ',')]);
    for (at, c) in ends {
        let separates = c == ',' && (!escaped || at == text.len());
        escaped = c == '\\' && !escaped;
        if separates {
            let part = text.get(from..at).unwrap_or_default();
            let blanks = part.len() - part.trim_start().len();
            entries.push((from + blanks, part.trim()));
            from = at + 1;
        }
    }
    entries
}

/// What one value of an option looks like, as a phrase after "expected".
pub(crate) fn expected(key: &Key) -> String {
    match key.kind {
        Kind::Number { min, max } => format!("a number from {min} to {max}"),
        Kind::Size { .. } => "a size".to_owned(),
        Kind::Duration { .. } => "a time".to_owned(),
        Kind::YesNo => "yes or no".to_owned(),
        Kind::Word(words) => values::one_of(words),
        Kind::Text(what) => what.to_owned(),
    }
}
