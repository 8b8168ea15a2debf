//! The manual pages, made from the tables of options.
//!
//! The prose of each page stands in a file beside this one, in the macros of
//! man(7), with a line `@options@` where the options of the table go. The pages
//! are files of the repository (`packaging/man`); a test holds them to this.
//!
//! Not here: `help` and the README's table (`help`), completion (`completion`).

mod roff;

use super::help::{preset, value};
use super::key::{CTL, DAEMON, Group, Key, Table};
pub(super) use roff::first_sentence;
use roff::{paragraph, plain};

/// When the prose of the pages was last looked through.
const REVISED: &str = "November 25, 2026";

/// Where the options go.
const OPTIONS: &str = "@options@\n";

/// `secure_socket(8)`: commands, signals, exit codes, and a sentence for each
/// option.
pub fn daemon_page() -> String {
    let options = options(&DAEMON, brief);
    page(
        "SECURE_SOCKET",
        "8",
        "System Manager's Manual",
        &include_str!("secure_socket.8").replace(OPTIONS, &options),
    )
}

/// `secure_socketctl(1)`: commands and options of the client.
pub fn ctl_page() -> String {
    let options = options(&CTL, full);
    page(
        "SECURE_SOCKETCTL",
        "1",
        "General Commands Manual",
        &include_str!("secure_socketctl.1").replace(OPTIONS, &options),
    )
}

/// `secure_socket.conf(5)`: the file, the rules, and the daemon's options in full.
pub fn file_page() -> String {
    let sections = format!(".SH OPTIONS\n{}", options(&DAEMON, full));
    page(
        "SECURE_SOCKET.CONF",
        "5",
        "File Formats Manual",
        &include_str!("secure_socket.conf.5").replace(OPTIONS, &sections),
    )
}

fn page(title: &str, section: &str, manual: &str, body: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        ".\\\" Made from the table in src/config and the prose in src/config/manual.\n\
         .TH {title} {section} \"{REVISED}\" \"secure_socket {version}\" \"{manual}\"\n\
         .nh\n.ad l\n{body}"
    )
}

/// All options of a table, by group.
fn options(table: &Table, one: fn(&mut String, &Key)) -> String {
    let mut text = String::new();
    for Group { title, keys } in table.0 {
        text.push_str(&format!(".SS {}\n", plain(title)));
        for key in *keys {
            text.push_str(&format!(".TP\n.B {}\n", plain(key.name)));
            one(&mut text, key);
        }
    }
    text
}

/// What an option is for, in a sentence.
fn brief(text: &mut String, key: &Key) {
    paragraph(text, first_sentence(key.help));
    paragraph(text, &format!("Default: {}.", preset(key)));
}

/// All that the table knows about an option.
fn full(text: &mut String, key: &Key) {
    paragraph(text, key.help);
    text.push_str(".br\n");
    let (takes, default) = (value(key), preset(key));
    paragraph(text, &format!("Takes {takes}. Default: {default}."));
    text.push_str(".br\n");
    paragraph(text, &format!("Example: `{}={}`", key.name, key.example));
    if key.live || !key.old.is_empty() {
        text.push_str(".br\n");
    }
    if key.live {
        paragraph(text, "A reload puts a new value in force.");
    }
    if !key.old.is_empty() {
        let old = key.old.join(", ");
        paragraph(text, &format!("In the original's files also {old}."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    #[test]
    fn every_option_is_in_its_pages() {
        for (table, page) in [
            (DAEMON, daemon_page()),
            (DAEMON, file_page()),
            (CTL, ctl_page()),
        ] {
            for key in table.keys() {
                let heading = format!("\n.TP\n.B {}\n", key.name);
                assert!(page.contains(&heading), "{}", key.name);
            }
            assert!(!page.contains("@options"));
        }
    }

    #[test]
    fn every_exit_code_is_in_the_page_of_the_daemon() {
        let page = daemon_page();
        for code in [
            exit::OK,
            exit::FORCED,
            exit::USAGE,
            exit::DATA,
            exit::UNAVAILABLE,
            exit::INTERNAL,
            exit::SYSTEM,
            exit::CANNOT_CREATE,
            exit::NO_PERMISSION,
            exit::CONFIG,
        ] {
            assert!(page.contains(&format!("\n.TP\n.B {code}\n")), "{code}");
        }
    }

    #[test]
    fn every_command_is_in_its_page() {
        let pages = [
            (daemon_page(), &crate::config::GRAMMAR),
            (ctl_page(), &crate::config::ctl::GRAMMAR),
        ];
        for (page, grammar) in pages {
            for verb in grammar.verbs {
                let name = plain(verb.name);
                let headings = [format!(".TP\n.B {name}\n"), format!(".TP\n.BI {name} \"")];
                assert!(headings.iter().any(|one| page.contains(one)), "{name}");
            }
        }
    }
}
