//! Texts and bytes through the log's escapes.
//!
//! - What is written stays on its line and steers no terminal.
//! - Texts and bytes come back as they were; each has one escaped form.
//! - A line that was escaped already is left as it is.

use secure_socket::logging::escape::{
    self, Untrusted, is_plain, leftover, line, unline, unline_bytes,
};

pub fn check(data: &[u8]) {
    let bytes_as_text = Untrusted(data).to_string();
    let mut escaped = String::new();
    line(&bytes_as_text, &mut escaped);
    assert!(crate::is_quiet(&escaped), "{escaped:?}");
    assert_eq!(unline_bytes(&escaped).as_deref(), Ok(data));
    if is_plain(data) {
        assert_eq!(escaped.as_bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut escaped = String::new();
    line(text, &mut escaped);
    assert!(crate::is_quiet(&escaped), "{escaped:?}");
    assert_eq!(escape::escaped(text), escaped);
    assert_eq!(unline(&escaped).as_deref(), Ok(text));
    let mut twice = String::new();
    leftover(&escaped, &mut twice);
    assert_eq!(escaped, twice);
    match unline(text) {
        Ok(original) => {
            let mut again = String::new();
            line(&original, &mut again);
            assert_eq!(again, text, "two escaped forms of one text");
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.at) && error.at < text.len());
            assert!(
                error
                    .to_string()
                    .ends_with(&format!(" at byte {}", error.at))
            );
        }
    }
    let mut left = String::new();
    leftover(text, &mut left);
    assert!(crate::is_quiet(&left), "{left:?}");
}
