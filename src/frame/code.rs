//! The numbers of ERROR frames.

use std::fmt;

/// Why the broker refused a frame, or ended a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The frame breaks the format. The connection closes after it.
    Protocol,
    /// No `permit` rule lets this peer do it.
    Denied,
    /// Nobody serves this subject.
    NoResponder,
    /// `request_timeout` has passed without an answer.
    Timeout,
    /// The other side of the request has gone, or the request has ended.
    Gone,
    /// A bound was reached; the text names it.
    Quota,
    /// The frame is larger than its receiver accepts.
    TooLarge,
    /// The id is in use already.
    DuplicateId,
    /// The broker is about to stop and takes nothing new.
    Stopping,
}

const ALL: [(ErrorCode, u16, &str); 9] = [
    (ErrorCode::Protocol, 1, "protocol"),
    (ErrorCode::Denied, 2, "denied"),
    (ErrorCode::NoResponder, 3, "no responder"),
    (ErrorCode::Timeout, 4, "timeout"),
    (ErrorCode::Gone, 5, "gone"),
    (ErrorCode::Quota, 6, "quota"),
    (ErrorCode::TooLarge, 7, "too large"),
    (ErrorCode::DuplicateId, 8, "duplicate id"),
    (ErrorCode::Stopping, 9, "stopping"),
];

impl ErrorCode {
    /// The number on the wire, 1 to 9.
    pub fn to_wire(self) -> u16 {
        ALL.iter().find(|row| row.0 == self).map_or(0, |row| row.1)
    }

    /// Reads the number. `None` for one that version 1 doesn't define.
    pub fn from_wire(number: u16) -> Option<Self> {
        ALL.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The name, as the specification spells it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|row| row.0 == self).map_or("", |row| row.2)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back() {
        for number in 0..=u16::MAX {
            match ErrorCode::from_wire(number) {
                Some(code) => assert_eq!(code.to_wire(), number),
                None => assert!(number == 0 || number > 9),
            }
        }
    }

    #[test]
    fn each_has_the_name_that_the_specification_gives_it() {
        let names: Vec<String> = (1..=9)
            .map(|number| ErrorCode::from_wire(number).unwrap().to_string())
            .collect();
        let specified = [
            "protocol",
            "denied",
            "no responder",
            "timeout",
            "gone",
            "quota",
            "too large",
            "duplicate id",
            "stopping",
        ];
        assert_eq!(names, specified);
    }
}
