//! How values are written inside rules: `,` joins criteria, `|` joins
//! alternatives, and a backslash takes either, or itself, or `xHH`, literally.

#![forbid(unsafe_code)]

/// A piece of a text, and the column, in characters from 1, where it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece<'t> {
    pub(super) column: usize,
    pub(super) text: &'t str,
}

/// Cuts a text at a separator that no backslash precedes, and trims blanks.
pub(super) fn split(whole: Piece<'_>, separator: char) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut start_column) = (0, whole.column);
    let mut escaped = false;
    for (count, (at, character)) in whole.text.char_indices().enumerate() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == separator {
            pieces.push(trimmed(
                whole.text.get(start..at).unwrap_or(""),
                start_column,
            ));
            start = at.saturating_add(character.len_utf8());
            start_column = whole.column.saturating_add(count).saturating_add(1);
        }
    }
    pieces.push(trimmed(whole.text.get(start..).unwrap_or(""), start_column));
    pieces
}

/// Cuts the value of a list option at its commas, blanks trimmed. `\,` is a comma
/// that does not cut; backslashes stay, for the parser of the single value.
pub fn split_list(text: &str) -> Vec<&str> {
    split(Piece { column: 1, text }, ',')
        .into_iter()
        .map(|piece| piece.text)
        .collect()
}

fn trimmed(text: &str, column: usize) -> Piece<'_> {
    let without_start = text.trim_start_matches([' ', '\t']);
    // Blanks are one byte each.
    let skipped = text.len().saturating_sub(without_start.len());
    Piece {
        column: column.saturating_add(skipped),
        text: without_start.trim_end_matches([' ', '\t']),
    }
}

/// Takes the backslashes out of a value.
///
/// # Errors
///
/// Says what is wrong with a backslash: one at the end, or before a character
/// that needs none.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match characters.next() {
            Some(plain @ (',' | '|' | '\\')) => {
                bytes.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some('x') => {
                let mut digit = || characters.next().and_then(|c| c.to_digit(16));
                let byte = digit().zip(digit()).map(|(high, low)| high << 4 | low);
                let byte = byte.and_then(|value| u8::try_from(value).ok());
                bytes.push(byte.ok_or("expected two hexadecimal digits after \"\\x\"")?);
            }
            _ => {
                return Err(String::from(
                    "expected \",\", \"|\", \"\\\" or xHH after a backslash",
                ));
            }
        }
    }
    Ok(bytes)
}

/// Writes a value so that [`split_list`] and a rule's parser read it back: printable
/// text stays, separators and backslashes get a backslash, other bytes `\xHH`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ',' | '|' | '\\' => text.extend(['\\', character]),
                ' ' => text.push(' '),
                _ if is_plain(character) => text.push(character),
                _ => push_hex(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    keep_outer_blanks(text)
}

/// Whether a character neither controls a terminal nor looks like a blank.
fn is_plain(character: char) -> bool {
    let bidirectional = matches!(character, '\u{061c}' | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    !character.is_control() && !character.is_whitespace() && !bidirectional
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

/// Blanks at either end would be trimmed: they are written as `\x20`.
fn keep_outer_blanks(text: String) -> String {
    let inner = text.trim_matches(' ');
    if inner.len() == text.len() {
        return text;
    }
    let (first, last) = (text.find(inner).unwrap_or(0), inner.len());
    let after = text.len().saturating_sub(first.saturating_add(last));
    format!("{}{inner}{}", "\\x20".repeat(first), "\\x20".repeat(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_round_trip(bytes: &[u8], expected: &str) {
        let text = escape(bytes);
        assert_eq!(text, expected);
        assert_eq!(split_list(&text), [text.as_str()], "one value stays one");
        assert_eq!(unescape(&text).as_deref(), Ok(bytes));
    }

    #[test]
    fn what_is_escaped_is_read_back() {
        check_round_trip(b"/usr/sbin/nginx", "/usr/sbin/nginx");
        check_round_trip(b"a,b|c\\d", "a\\,b\\|c\\\\d");
        check_round_trip(b" a b ", "\\x20a b\\x20");
        check_round_trip(b"   ", "\\x20\\x20\\x20");
        check_round_trip(b"\n\x1b\xff", "\\x0a\\x1b\\xff");
        check_round_trip("é\u{202e}".as_bytes(), "é\\xe2\\x80\\xae");
        check_round_trip(b"", "");
    }

    #[test]
    fn a_stray_backslash_is_refused() {
        for text in ["\\", "a\\", "\\n", "\\x", "\\x1", "\\xg0"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pieces_know_their_column() {
        let pieces = split(
            Piece {
                column: 1,
                text: "é:1,  b:2 ,c",
            },
            ',',
        );
        let columns: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.column, piece.text))
            .collect();
        assert_eq!(columns, [(1, "é:1"), (7, "b:2"), (12, "c")]);
    }
}
