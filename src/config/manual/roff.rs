//! Text with Markdown's marks for code, to the source of a manual page (roff(7)).
//!
//! Each sentence begins a line, as readers of such sources expect, and no line is
//! longer than [`WIDTH`]. Nothing in a text is taken for a request or an escape.

/// The longest line in characters.
const WIDTH: usize = 78;

/// The longest word in characters that is sure to fit a terminal.
const LONGEST_WORD: usize = 60;

/// Appends text as filled lines, code in bold.
pub(super) fn paragraph(page: &mut String, text: &str) {
    let mut line = String::new();
    let mut ended = false;
    let text = code_in_bold(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_full = line.chars().count() + 1 + word.chars().count() > WIDTH;
        if !line.is_empty() && (is_full || ended && begins_sentence(word)) {
            push_line(page, &line);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        ended = word.trim_end_matches("\\fR").ends_with('.');
    }
    push_line(page, &line);
}

fn push_line(page: &mut String, line: &str) {
    let line = &breakable(line);
    if line.starts_with(['.', '\'']) {
        page.push_str("\\&");
    }
    page.push_str(line);
    page.push('\n');
}

/// Code does too: options are explained one by one, each in a sentence.
fn begins_sentence(word: &str) -> bool {
    word.chars().next().is_some_and(|c| !c.is_lowercase())
}

/// Every second piece between backticks is code.
fn code_in_bold(text: &str) -> String {
    let mut roff = String::new();
    for (at, piece) in text.split('`').enumerate() {
        match at % 2 {
            0 => roff.push_str(&plain(piece)),
            _ => roff.push_str(&format!("\\fB{}\\fR", plain(piece))),
        }
    }
    roff
}

/// A word that no terminal has room for may be broken anywhere.
fn breakable(line: &str) -> String {
    if line.contains(' ') || line.chars().count() <= LONGEST_WORD {
        return line.to_owned();
    }
    let mut broken = String::new();
    for (at, c) in line.chars().enumerate() {
        if at > 0 && at % (LONGEST_WORD / 2) == 0 {
            broken.push_str("\\:");
        }
        broken.push(c);
    }
    broken
}

/// Text that roff takes as it stands, so that what is copied from a page is what
/// was meant: no escape, and ASCII where typesetting has other signs.
pub(super) fn plain(text: &str) -> String {
    let mut roff = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => roff.push_str("\\e"),
            '-' => roff.push_str("\\-"),
            '\'' => roff.push_str("\\(aq"),
            '`' => roff.push_str("\\(ga"),
            '^' => roff.push_str("\\(ha"),
            '~' => roff.push_str("\\(ti"),
            _ => roff.push(c),
        }
    }
    roff
}

/// Up to the first full stop that a new sentence or nothing follows.
pub(in crate::config) fn first_sentence(text: &str) -> &str {
    let ends = |at: &usize| {
        let rest = text.get(at + 2..).unwrap_or_default();
        rest.starts_with(|c: char| !c.is_lowercase())
    };
    let end = text.match_indices(". ").map(|(at, _)| at).find(ends);
    end.and_then(|end| text.get(..=end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut page = String::new();
        paragraph(&mut page, text);
        assert_eq!(page, expected);
    }

    #[test]
    fn a_sentence_begins_a_line() {
        check("One. Two e.g. three.", "One.\nTwo e.g. three.\n");
        check("Is `no`. `yes`: on.", "Is \\fBno\\fR.\n\\fByes\\fR: on.\n");
    }

    #[test]
    fn nothing_is_a_request_or_an_escape() {
        check(".so /etc/passwd", "\\&.so /etc/passwd\n");
        check("'a\\b-c", "\\(aqa\\eb\\-c\n");
    }

    #[test]
    fn long_lines_are_broken() {
        let mut page = String::new();
        paragraph(&mut page, &"word ".repeat(50));
        assert!(page.lines().count() > 3 && page.lines().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn the_first_sentence_ends_at_its_stop() {
        assert_eq!(first_sentence("One 1.5 e.g. so. Two."), "One 1.5 e.g. so.");
        assert_eq!(first_sentence("One."), "One.");
    }
}
