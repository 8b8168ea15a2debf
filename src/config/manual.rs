//! The manual page and the shell completion, made from the table of options.
//!
//! Both are files of the repository (`packaging/`); a test holds them to this.

use super::help::{preset, value};
use super::key::{CTL, DAEMON, Group, Key, Kind, Table};

/// `secure_socket(8)`, in the man macros of roff (man(7)).
pub fn man_page() -> String {
    let mut text = String::from(
        ".\\\" Made from the table in src/config.\n\
         .TH SECURE_SOCKET 8 \"\" \"secure_socket\"\n\
         .SH NAME\n\
         secure_socket \\- a locked-down local socket that admits only the peers that the kernel \
         vouches for\n\
         .SH SYNOPSIS\n\
         .B secure_socket\n[serve|check] [\\fIoption\\fR=\\fIvalue\\fR ...]\n.br\n\
         .B secure_socket\nexplain [\\fIoption\\fR=\\fIvalue\\fR ...] peer=\\fIfacts\\fR\n.br\n\
         .B secure_socket\nhelp [\\fIoption\\fR]\n.br\n\
         .B secure_socket\nversion\n\
         .SH DESCRIPTION\n\
         .B serve\n(the default) opens the socket and serves. \
         .B check\nprints the effective configuration and opens nothing. \
         .B explain\nprints which rule decides for such a peer, and why.\n\
         .PP\n\
         Sizes take K, M, G (1024); times take ms, s, m, h, and a bare number is seconds; lists \
         are separated by commas; yes and no may be on, off, true, false, 1, 0.\n\
         .SH OPTIONS\n",
    );
    DAEMON
        .0
        .iter()
        .for_each(|group| man_group(&mut text, group));
    text.push_str(
        ".SH EXIT STATUS\n\
         0 done; 1 a stop that had to close connections; 64 bad command line; 65 bad input data; \
         69 a needed service is not there; 70 internal error; 71 the system refused; 73 cannot \
         create; 77 no permission; 78 bad configuration.\n\
         .SH SIGNALS\n\
         TERM and INT stop, a second one at once; HUP reads the configuration again and reopens \
         logs; USR1 writes a summary of the state to the log.\n\
         .SH SEE ALSO\n\
         .BR secure_socketctl (1)\n",
    );
    text
}

fn man_group(text: &mut String, group: &Group) {
    text.push_str(&format!(".SS \"{}\"\n", roff(group.title)));
    for key in group.keys {
        text.push_str(&format!(
            ".TP\n.B {}\n{}\n",
            roff(key.name),
            roff(&plain(key.help))
        ));
        let (takes, default) = (plain(&value(key)), plain(preset(key)));
        text.push_str(&format!(
            "Takes {}. Default: {}.\n",
            roff(&takes),
            roff(&default)
        ));
        if key.live {
            text.push_str("A reload puts a new value in force.\n");
        }
    }
}

/// Text that roff takes as it stands: no escape, no request at its start.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Without Markdown's marks for code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Completion for bash: commands, options, and the words that an option takes.
pub fn bash_completion() -> String {
    let mut text = String::from(
        "# Completion for bash, made from the table in src/config.\n\
         # bash cuts words at =, so a value is completed as a word of its own.\n",
    );
    bash_function(
        &mut text,
        "secure_socket",
        "serve check explain help version",
        &DAEMON,
    );
    let verbs = "connect publish subscribe request respond mqcat verify-trail help version";
    bash_function(&mut text, "secure_socketctl", verbs, &CTL);
    text
}

fn bash_function(text: &mut String, program: &str, verbs: &str, table: &Table) {
    let names: Vec<_> = table.keys().map(|key| format!("{}=", key.name)).collect();
    text.push_str(&format!(
        "\n_{program}() {{\n    \
         local word=${{COMP_WORDS[COMP_CWORD]}} option=\n    \
         COMPREPLY=()\n    \
         if [[ $word == = ]]; then\n        \
         option=${{COMP_WORDS[COMP_CWORD-1]}} word=\n    \
         elif [[ ${{COMP_WORDS[COMP_CWORD-1]}} == = ]]; then\n        \
         option=${{COMP_WORDS[COMP_CWORD-2]}}\n    \
         fi\n    \
         case ${{option#--}} in\n"
    ));
    for key in table.keys() {
        if let Some(action) = bash_values(key) {
            text.push_str(&format!("        {}) {action} ;;\n", key.name));
        }
    }
    text.push_str(&format!(
        "        '') compopt -o nospace\n            \
         mapfile -t COMPREPLY < <(compgen -W '{verbs} {}' -- \"$word\") ;;\n    \
         esac\n}}\ncomplete -F _{program} {program}\n",
        names.join(" ")
    ));
}

/// What completes a value.
fn bash_values(key: &Key) -> Option<String> {
    let words = match key.kind {
        Kind::Word(words) => words.join(" "),
        Kind::YesNo => "yes no".to_owned(),
        Kind::Text(what) if what.contains("absolute path") || what.starts_with("path") => {
            return Some("mapfile -t COMPREPLY < <(compgen -f -- \"$word\")".to_owned());
        }
        Kind::Number { .. } | Kind::Size { .. } | Kind::Duration { .. } | Kind::Text(_) => {
            return None;
        }
    };
    Some(format!(
        "mapfile -t COMPREPLY < <(compgen -W '{words}' -- \"$word\")"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_manual_and_in_the_completion() {
        let (manual, completion) = (man_page(), bash_completion());
        for key in DAEMON.keys() {
            assert!(
                manual.contains(&format!("\n.B {}\n", key.name)),
                "{}",
                key.name
            );
            assert!(
                completion.contains(&format!(" {}=", key.name)),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn no_line_of_the_manual_is_a_request_by_accident() {
        let known = [
            ".\\\"", ".TH", ".SH", ".SS", ".B ", ".BR", ".TP", ".PP", ".br",
        ];
        for line in man_page()
            .lines()
            .filter(|line| line.starts_with(['.', '\'']))
        {
            assert!(
                known.iter().any(|request| line.starts_with(request)),
                "{line}"
            );
        }
    }
}
