//! The first 16 bytes of each direction.

use super::header::{FrameError, FrameLimit};

/// Length of a greeting.
pub const GREETING_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"SSB1";
const VERSION: u16 = 1;

/// What each side says first, without waiting for the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Largest `length` (subject and body) that the sender accepts.
    pub accepts: FrameLimit,
}

impl Greeting {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let [a, b, c, d] = self.accepts.bytes().to_be_bytes();
        let [m0, m1, m2, m3] = MAGIC;
        let [v0, v1] = VERSION.to_be_bytes();
        [m0, m1, m2, m3, v0, v1, 0, 0, a, b, c, d, 0, 0, 0, 0]
    }

    /// Reads a greeting. A limit above [`FrameLimit::MAX`] is taken as that.
    ///
    /// # Errors
    ///
    /// Names the first field that version 1 doesn't allow.
    pub fn parse(bytes: &[u8; GREETING_BYTES]) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, v0, v1, f0, f1, a, b, c, d, reserved @ ..] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        if u16::from_be_bytes([v0, v1]) != VERSION {
            return Err(FrameError::Version(u16::from_be_bytes([v0, v1])));
        }
        if [f0, f1] != [0; 2] || reserved != [0; 4] {
            return Err(FrameError::Reserved);
        }
        let accepts = u32::from_be_bytes([a, b, c, d]).min(FrameLimit::MAX.bytes());
        let accepts = FrameLimit::new(accepts).ok_or(FrameError::LimitTooSmall(accepts))?;
        Ok(Self { accepts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl Fn(&mut [u8; 16]), expect: Result<u32, FrameError>) {
        let mut bytes = Greeting {
            accepts: FrameLimit::DEFAULT,
        }
        .encode();
        change(&mut bytes);
        assert_eq!(Greeting::parse(&bytes).map(|g| g.accepts.bytes()), expect);
    }

    #[test]
    fn each_field_is_checked() {
        check(|_| (), Ok(1 << 20));
        check(|b| b[3] = b'2', Err(FrameError::Magic));
        check(|b| b[5] = 2, Err(FrameError::Version(2)));
        check(|b| b[7] = 1, Err(FrameError::Reserved));
        check(|b| b[15] = 1, Err(FrameError::Reserved));
        check(|b| b[8..12].fill(0xff), Ok(FrameLimit::MAX.bytes()));
    }

    #[test]
    fn the_smallest_limit_still_holds_every_error_and_stamp() {
        let set = |n: u32| move |b: &mut [u8; 16]| b[8..12].copy_from_slice(&n.to_be_bytes());
        check(
            set(FrameLimit::MIN.bytes() - 1),
            Err(FrameError::LimitTooSmall(1023)),
        );
        check(set(FrameLimit::MIN.bytes()), Ok(1024));
        check(set(FrameLimit::MIN.bytes() + 1), Ok(1025));
    }
}
