//! `help`, `help OPTION` and the README's table, made from the table of options.

use super::key::{Arity, CTL, DAEMON, Key, Kind, Preset, Table};
use super::values::{one_of, show_duration, show_size};

/// Width of the help text in characters.
const WIDTH: usize = 78;

const USAGE: &str = "\
secure_socket [serve] [option=value ...]    open the socket and serve (the default)
secure_socket check   [option=value ...]    print the configuration in force, open nothing
secure_socket explain [option=value ...] peer=uid:33,gid:33,groups:4+27,pid:812,exe:/usr/sbin/nginx
                                            print which rule decides for such a peer, and why
secure_socket help [option]                 all options, or one
secure_socket version
";

const CTL_USAGE: &str = "\
secure_socketctl connect      [option=value ...]    stdin and stdout to the socket
secure_socketctl publish      SUBJECT [option=value ...]    a message for each line of stdin
secure_socketctl subscribe    PATTERN [option=value ...]    messages to stdout
secure_socketctl request      SUBJECT [option=value ...]    stdin is the request, stdout the answer
secure_socketctl respond      PATTERN [option=value ...] -- COMMAND [ARGUMENT ...]
secure_socketctl mqcat        [mq_name=/name]       follow the message queue of the log
secure_socketctl verify-trail FILE ...              check the chain of these files, in order
secure_socketctl help         [option]
secure_socketctl version
";

const COMMON: &str = "\
--option=value and option=value are the same. Sizes take K, M, G; times take
ms, s, m, h, and a bare number is seconds; lists are separated by commas.
";

/// The line that opens the README's table, and the one that closes it.
pub const README_BEGIN: &str = "<!-- options: made from the table in src/config, do not edit -->";
/// See [`README_BEGIN`].
pub const README_END: &str = "<!-- end of options -->";

/// What an option takes, as a phrase: `a number from 1 to 65535`.
pub fn value(key: &Key) -> String {
    let one = match key.kind {
        Kind::Number { min, max } => format!("a number from {min} to {max}"),
        Kind::Size { min, max } => format!("a size from {} to {}", show_size(min), show_size(max)),
        Kind::Duration { min, max } => {
            format!(
                "a time from {} to {}",
                show_duration(min),
                show_duration(max)
            )
        }
        Kind::YesNo => "yes or no".to_owned(),
        Kind::Word(words) => one_of(words),
        Kind::Text(what) => what.to_owned(),
    };
    match key.arity {
        Arity::Once => one,
        Arity::List => format!("{one}; a list"),
        Arity::Repeated => format!("{one}; may be repeated"),
    }
}

/// The default, as a phrase.
pub fn preset(key: &Key) -> &'static str {
    match key.preset {
        Preset::Value(value) => value,
        Preset::Nothing => "none",
        Preset::Follows(how) => how,
    }
}

/// The text of `help`: how to call the program, and all options.
pub fn overview() -> String {
    format!("{USAGE}\n{COMMON}{}", options(DAEMON))
}

/// The text of `secure_socketctl help`.
pub fn ctl_overview() -> String {
    format!("{CTL_USAGE}\n{COMMON}{}", options(CTL))
}

fn options(table: Table) -> String {
    let mut text = String::new();
    for group in table.0 {
        text.push_str(&format!("\n{}:\n", group.title));
        for key in group.keys {
            text.push_str(&format!("\n  {}\n", key.name));
            paragraph(
                &mut text,
                "      ",
                &format!("Takes {}.", plain(&value(key))),
            );
            paragraph(
                &mut text,
                "      ",
                &format!("Default: {}.", plain(preset(key))),
            );
            paragraph(&mut text, "      ", &plain(key.help));
        }
    }
    text
}

/// The text of `help OPTION`.
pub fn option(key: &Key) -> String {
    let mut text = format!("{}={}\n\n", key.name, key.example);
    paragraph(&mut text, "", &plain(key.help));
    text.push('\n');
    paragraph(&mut text, "", &format!("Takes {}.", plain(&value(key))));
    paragraph(&mut text, "", &format!("Default: {}.", plain(preset(key))));
    if key.live {
        paragraph(
            &mut text,
            "",
            "A reload (SIGHUP) puts a new value in force.",
        );
    }
    if !key.old.is_empty() {
        let old = key.old.join(", ");
        paragraph(&mut text, "", &format!("In the original's files: {old}."));
    }
    text
}

/// The README's tables, one for each group, from marker to marker.
pub fn readme() -> String {
    let mut text = format!("{README_BEGIN}\n");
    for group in DAEMON.0 {
        text.push_str(&format!("\n### {}\n\n", group.title));
        text.push_str("| option | takes | default | meaning |\n|---|---|---|---|\n");
        for key in group.keys {
            let default = match key.preset {
                Preset::Value(value) => format!("`{value}`"),
                Preset::Nothing => "none".to_owned(),
                Preset::Follows(how) => how.to_owned(),
            };
            let takes = cell(&angled(&value(key)));
            let row = format!(
                "| `{}` | {takes} | {} | {} |\n",
                key.name,
                cell(&default),
                cell(key.help)
            );
            text.push_str(&row);
        }
    }
    text + "\n" + README_END + "\n"
}

/// Text that may stand in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Underscores and stars that Markdown would take for emphasis.
fn angled(text: &str) -> String {
    text.replace('_', "\\_").replace('*', "\\*")
}

/// Without Markdown's marks for code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Appends words, broken before `WIDTH`.
fn paragraph(text: &mut String, indent: &str, words: &str) {
    let mut line = String::from(indent);
    for word in words.split(' ') {
        let needed = line.chars().count() + 1 + word.chars().count();
        if needed > WIDTH && line.len() > indent.len() {
            text.push_str(line.trim_end());
            text.push('\n');
            line = String::from(indent);
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_help_and_in_the_table_of_the_readme() {
        let (help, readme) = (overview(), readme());
        for key in DAEMON.keys() {
            assert!(
                help.contains(&format!("\n  {}\n", key.name)),
                "{}",
                key.name
            );
            assert!(
                readme.contains(&format!("\n| `{}` |", key.name)),
                "{}",
                key.name
            );
            assert!(option(key).starts_with(key.name), "{}", key.name);
        }
    }

    #[test]
    fn no_line_of_options_is_wider_than_a_terminal() {
        for line in overview().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
