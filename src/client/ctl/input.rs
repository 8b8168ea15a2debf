//! Input in pieces: lines, or lengths with their bytes.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// Longest piece; the broker's limit is below it.
const MAX_PIECE_BYTES: u32 = 1 << 28;

pub(super) struct Pieces<R> {
    input: BufReader<R>,
    length_prefixed: bool,
}

impl<R: Read> Pieces<R> {
    pub(super) fn new(input: R, length_prefixed: bool) -> Self {
        Self {
            input: BufReader::with_capacity(64 << 10, input),
            length_prefixed,
        }
    }

    /// The next piece; `None` at the end. A last line needs no newline.
    ///
    /// Errors are those of the input; `UnexpectedEof` in the middle of a piece, and
    /// `InvalidData` for one of more than 256 MiB.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.length_prefixed {
            self.prefixed()
        } else {
            self.line()
        }
    }

    /// Whether something is at hand without reading.
    pub(super) fn has_more_at_hand(&self) -> bool {
        !self.input.buffer().is_empty()
    }

    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.input).take(u64::from(MAX_PIECE_BYTES) + 1);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if limited.limit() == 0 {
            return Err(too_long());
        }
        Ok(Some(line))
    }

    fn prefixed(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_PIECE_BYTES {
            return Err(too_long());
        }
        let mut piece = Vec::new();
        // Memory grows with what comes, not with what is promised.
        (&mut self.input)
            .take(u64::from(length))
            .read_to_end(&mut piece)?;
        if u32::try_from(piece.len()).is_ok_and(|got| got == length) {
            Ok(Some(piece))
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a message of more than 256 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &[u8], prefixed: bool, expect: &[&[u8]]) {
        let mut pieces = Pieces::new(input, prefixed);
        for piece in expect {
            assert_eq!(pieces.next().unwrap().as_deref(), Some(*piece));
        }
        assert_eq!(pieces.next().unwrap(), None);
    }

    #[test]
    fn lines_and_lengths() {
        check(b"", false, &[]);
        check(b"a\n\nb", false, &[b"a", b"", b"b"]);
        check(b"\0\0\0\x02a\n\0\0\0\0", true, &[b"a\n", b""]);
        assert!(Pieces::new(&b"\0\0\0\x02a"[..], true).next().is_err());
        assert!(Pieces::new(&b"\xff\0\0\x02a"[..], true).next().is_err());
        assert!(Pieces::new(&b"\0\0"[..], true).next().is_err());
    }
}
