//! The command line over the file, option by option.
//!
//! An option that is given on the command line replaces all that the file says
//! about it, also where it may be repeated; what gives way then is named.

use std::collections::{HashMap, HashSet};

use super::diagnostics::Diagnostics;
use super::given::Given;
use super::key::Arity;

/// Puts the command line before the file: one `Given` for each value in force.
pub(crate) fn merge(
    command_line: Vec<Given>,
    file: Vec<Given>,
    diagnostics: &mut Diagnostics,
) -> Vec<Given> {
    for given in [&command_line, &file] {
        refuse_repeats(given, diagnostics);
    }
    let winning: HashSet<_> = command_line.iter().map(|given| given.key.name).collect();
    let wins = |given: &Given| winning.contains(given.key.name);
    let (beaten, rest): (Vec<_>, Vec<_>) = file.into_iter().partition(wins);
    for given in beaten.iter().filter(|given| given.key.arity != Arity::Once) {
        let text = "not in force, since the command line gives this option";
        diagnostics.notice(Some(given.place()), given.key.name, text);
    }
    command_line.into_iter().chain(rest).collect()
}

fn refuse_repeats(given: &[Given], diagnostics: &mut Diagnostics) {
    let mut seen: HashMap<_, &Given> = HashMap::new();
    for second in given
        .iter()
        .filter(|given| given.key.arity != Arity::Repeated)
    {
        let Some(first) = seen.get(second.key.name) else {
            seen.insert(second.key.name, second);
            continue;
        };
        let advice = match second.key.arity {
            Arity::List => "; separate values by commas",
            _ => "",
        };
        let text = format!("given twice, first at {}{advice}", first.place());
        diagnostics.error(Some(second.place()), second.key.name, text);
    }
}
