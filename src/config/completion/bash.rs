//! Completion for bash.

use super::super::args::Grammar;
use super::{Values, by_values, is_list, names, values, verbs};

const HEAD: &str = r#"# Completion for bash, made from the table in src/config.

# Offers those words that go on as $1, the argument so far; each has $2 before it.
# readline cuts words at some characters: what stands before the last of them is
# there already, and no part of an answer.
_secure_socket_offer() {
    local argument=$1 head=$2 word cut=
    shift 2
    local breaks=${COMP_WORDBREAKS//[^=:@]/}
    if [[ -n $breaks && $argument == *[$breaks]* ]]; then
        cut=${argument%"${argument##*[$breaks]}"}
    fi
    for word; do
        word=$head$word
        [[ $word == "$argument"* ]] && COMPREPLY+=("${word#"$cut"}")
    done
}
"#;

/// One function for each program, and what they share.
pub(super) fn file(programs: &[&Grammar]) -> String {
    let mut text = HEAD.to_owned();
    for grammar in programs {
        function(&mut text, grammar);
    }
    text
}

fn function(text: &mut String, grammar: &Grammar) {
    let program = grammar.program;
    text.push_str(&format!(
        r#"
_{program}() {{
    local line=${{COMP_LINE:0:COMP_POINT}} names words=()
    local argument=${{line##*[[:space:]]}}
    COMPREPLY=()
    if [[ $argument == *=* ]]; then
        local option=${{argument%%=*}} value=${{argument#*=}}
        local head=$option=
        case ${{option#--}} in
"#
    ));
    for (options, action) in by_values(grammar, action) {
        text.push_str(&format!(
            "            {options})\n                {action} ;;\n"
        ));
    }
    text.push_str(
        r#"        esac
        _secure_socket_offer "$argument" "$head" "${words[@]}"
        return
    fi
"#,
    );
    let (names, verbs) = (names(grammar).join(" "), verbs(grammar).join(" "));
    text.push_str(&format!(
        r#"    names='{names}'
    if [[ ${{COMP_WORDS[1]}} == help && $COMP_CWORD -eq 2 ]]; then
        names=${{names//=/}}
    else
        compopt -o nospace 2>/dev/null
        [[ $argument == --* ]] && names="--${{names// / --}}"
        [[ $COMP_CWORD -eq 1 ]] && names+=' {verbs}'
    fi
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$argument")
}}
complete -F _{program} {program}
"#
    ));
}

fn action(key: &super::Key) -> Option<String> {
    let list = match is_list(key) {
        true => "head+=${value%\"${value##*,}\"} value=${value##*,}\n                ",
        false => "",
    };
    let words = match values(key) {
        Values::Words(words) => format!("words=({})", words.join(" ")),
        Values::Users => "mapfile -t words < <(compgen -u)".to_owned(),
        Values::Groups => "mapfile -t words < <(compgen -g)".to_owned(),
        Values::Files => {
            "compopt -o filenames 2>/dev/null\n                mapfile -t words < <(compgen -f -- \"$value\")"
                .to_owned()
        }
        Values::Unknown => return None,
    };
    Some(format!("{list}{words}"))
}
