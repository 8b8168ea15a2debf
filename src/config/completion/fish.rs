//! Completion for fish.

use super::super::args::Grammar;
use super::{Values, by_values, is_list, summary, values, verbs};

/// One function that lists what may stand at the cursor.
pub(super) fn file(grammar: &Grammar) -> String {
    let program = grammar.program;
    let mut text = format!(
        "# Completion for fish, made from the table in src/config.\n\n\
         function __{program}_arguments\n    \
         set -l token (commandline -ct)\n    \
         if string match -q -- '*=*' $token\n        \
         __{program}_values $token\n        \
         return\n    \
         end\n    \
         set -l words (commandline -opc)\n    \
         set -l end =\n    \
         set -l dashes (string match -r -- '^--' $token)\n    \
         test (count $words) -eq 2; and test $words[2] = help; and set end ''\n"
    );
    text.push_str(&format!(
        "    test (count $words) -eq 1; and printf '%s\\n' {}\n",
        verbs(grammar).join(" ")
    ));
    for key in grammar.table.keys() {
        text.push_str(&format!(
            "    printf '%s\\t%s\\n' \"$dashes\"{}\"$end\" '{}'\n",
            key.name,
            quoted(&summary(key))
        ));
    }
    for extra in grammar.extras {
        text.push_str(&format!(
            "    printf '%s\\t%s\\n' \"$dashes\"{extra}\"$end\" 'Facts about a peer, for explain.'\n"
        ));
    }
    text.push_str(&format!(
        "end\n\nfunction __{program}_values\n    \
         set -l head (string match -r -- '^[^=]*=' $argv[1])\n    \
         set -l value (string replace -- $head '' $argv[1])\n    \
         set -l list $head(string match -r -- '^.*,' $value)\n    \
         test -n \"$list\"; or set list $head\n    \
         switch (string trim -c=- -- $head)\n"
    ));
    for (options, action) in by_values(grammar, action) {
        let options = options.replace('|', " ");
        text.push_str(&format!("        case {options}\n            {action}\n"));
    }
    text.push_str(&format!(
        "    end\nend\n\ncomplete -c {program} -f -a '(__{program}_arguments)'\n"
    ));
    text
}

fn action(key: &super::Key) -> Option<String> {
    let head = match is_list(key) {
        true => "$list",
        false => "$head",
    };
    let offer = match values(key) {
        Values::Words(words) => format!("printf '%s\\n' {head}{{{}}}", words.join(",")),
        Values::Users => format!("printf '%s\\n' {head}(__fish_complete_users)"),
        Values::Groups => format!("printf '%s\\n' {head}(__fish_complete_groups)"),
        Values::Files if is_list(key) => {
            "printf '%s\\n' $list(__fish_complete_path (string replace -r -- '^.*,' '' $value))"
                .to_owned()
        }
        Values::Files => "printf '%s\\n' $head(__fish_complete_path $value)".to_owned(),
        Values::Unknown => return None,
    };
    Some(offer)
}

/// Inside single quotes.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
