//! Completion for zsh.

use super::super::args::Grammar;
use super::{Values, by_values, is_list, summary, values, verbs};

/// One function for each program, chosen by its name.
pub(super) fn file(programs: &[&Grammar]) -> String {
    let all: Vec<_> = programs.iter().map(|grammar| grammar.program).collect();
    let mut text = format!(
        "#compdef {}\n# Completion for zsh, made from the table in src/config.\n",
        all.join(" ")
    );
    for grammar in programs {
        function(&mut text, grammar);
    }
    text.push_str("\ncase $service in\n");
    for program in all {
        text.push_str(&format!("  {program}) __{program} \"$@\" ;;\n"));
    }
    text + "esac\n"
}

fn function(text: &mut String, grammar: &Grammar) {
    text.push_str(&format!(
        "\n__{}() {{\n  local option\n  \
         if [[ $PREFIX == *=* ]]; then\n    \
         option=${{${{PREFIX%%=*}}#--}}\n    \
         compset -P 1 '*='\n    \
         case $option in\n",
        grammar.program
    ));
    for (options, action) in by_values(grammar, action) {
        text.push_str(&format!("      ({options}) {action} ;;\n"));
    }
    text.push_str("    esac\n    return\n  fi\n  local -a names verbs\n  names=(\n");
    for key in grammar.table.keys() {
        text.push_str(&format!("    '{}:{}'\n", key.name, quoted(&summary(key))));
    }
    for extra in grammar.extras {
        text.push_str(&format!("    '{extra}:Facts about a peer, for explain.'\n"));
    }
    text.push_str(&format!(
        "  )\n  verbs=({})\n  \
         if (( CURRENT == 3 )) && [[ $words[2] == help ]]; then\n    \
         _describe -t parameters option names\n    \
         return\n  \
         fi\n  \
         compset -P --\n  \
         _describe -t parameters option names -S =\n  \
         (( CURRENT == 2 )) && compadd -X command -a verbs\n}}\n",
        verbs(grammar).join(" ")
    ));
}

fn action(key: &super::Key) -> Option<String> {
    let list = match is_list(key) {
        true => "compset -P '*,'; ",
        false => "",
    };
    let offer = match values(key) {
        // A criterion goes on behind its colon.
        Values::Words(words) if words.iter().any(|word| word.ends_with(':')) => {
            format!("compadd -S '' -- {}", words.join(" "))
        }
        Values::Words(words) => format!("compadd -- {}", words.join(" ")),
        Values::Users => "_users".to_owned(),
        Values::Groups => "_groups".to_owned(),
        Values::Files => "_files".to_owned(),
        Values::Unknown => return None,
    };
    Some(format!("{list}{offer}"))
}

/// Inside single quotes.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}
