//! Where a listener listens: a path, an abstract name or an internet address,
//! each in a type that can't hold a wrong value.
//!
//! Not here: whether the path is safe to use. That is asked of the file system
//! when the socket is bound.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::str::FromStr;

/// Longest path in bytes: `PATH_MAX` less its NUL.
pub const PATH_MAX_LEN: usize = 4095;
/// Longest last component in bytes: `NAME_MAX` less room for `.lock`.
pub const NAME_MAX_LEN: usize = 250;
/// Longest directory name in bytes (`NAME_MAX`).
pub const DIRECTORY_NAME_MAX_LEN: usize = 255;
/// Longest abstract name in bytes: `sun_path` less the leading NUL (unix(7)).
pub const ABSTRACT_MAX_LEN: usize = 107;
/// Longest path that a client can put into `sun_path` as it stands (unix(7)).
pub const CLIENT_PATH_MAX_LEN: usize = 107;

/// Where a Unix-domain socket is found: an absolute path or, written `@name`,
/// a name in Linux's abstract namespace (unix(7)).
///
/// A path holds no NUL, no `..`, doesn't end in `/`, and has no more than 4095
/// bytes; `.` and doubled slashes are taken out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketPath(Repr);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Repr {
    Path(OsString),
    Abstract(Vec<u8>),
}

/// What a [`SocketPath`] is, to match on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketName<'a> {
    /// A name in the file system: absolute, without `..`.
    Path(&'a Path),
    /// A name in the abstract namespace of the network namespace, without the
    /// leading NUL: 1 to 107 bytes.
    Abstract(&'a [u8]),
}

/// Why a text is no [`SocketPath`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SocketPathError {
    /// Nothing was given.
    Empty,
    /// The path doesn't begin with `/`.
    NotAbsolute,
    /// There is a NUL at this byte, counted from 0.
    Nul(usize),
    /// The path ends in `/` or in `/.`, so it names a directory.
    NamesDirectory,
    /// One component is `..`.
    ParentComponent,
    /// The path has this many bytes, more than 4095.
    PathTooLong(usize),
    /// The last component has this many bytes, more than 250.
    NameTooLong(usize),
    /// A directory's name has this many bytes, more than 255.
    DirectoryNameTooLong(usize),
    /// `@` alone.
    EmptyAbstract,
    /// The abstract name has this many bytes, more than 107.
    AbstractTooLong(usize),
}

impl fmt::Display for SocketPathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("expected an absolute path or @name, found nothing"),
            Self::NotAbsolute => f.write_str("expected a path that begins with /, or @name"),
            Self::Nul(at) => write!(f, "expected a name without NUL, found one at byte {at}"),
            Self::NamesDirectory => {
                f.write_str("expected the path of a socket, found that of a directory")
            }
            Self::ParentComponent => f.write_str("expected a path without .. in it"),
            Self::PathTooLong(found) => {
                write!(
                    f,
                    "expected a path of at most {PATH_MAX_LEN} bytes, found {found}"
                )
            }
            Self::NameTooLong(found) => write!(
                f,
                "expected a socket name of at most {NAME_MAX_LEN} bytes, so that its lock file's \
                 name fits, found {found}"
            ),
            Self::DirectoryNameTooLong(found) => write!(
                f,
                "expected directory names of at most {DIRECTORY_NAME_MAX_LEN} bytes, found {found}"
            ),
            Self::EmptyAbstract => f.write_str("expected a name after @, found nothing"),
            Self::AbstractTooLong(found) => write!(
                f,
                "expected an abstract name of at most {ABSTRACT_MAX_LEN} bytes, found {found}"
            ),
        }
    }
}

impl std::error::Error for SocketPathError {}

impl SocketPath {
    /// Takes an absolute path or `@name`.
    ///
    /// # Errors
    ///
    /// One [`SocketPathError`] for each rule that the text can break.
    pub fn parse(text: &OsStr) -> Result<Self, SocketPathError> {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(SocketPathError::Empty);
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(SocketPathError::Nul(at));
        }
        match bytes {
            [b'@', name @ ..] => parse_abstract(name),
            [b'/', ..] => parse_path(bytes),
            _ => Err(SocketPathError::NotAbsolute),
        }
    }

    /// The path or the abstract name.
    pub fn name(&self) -> SocketName<'_> {
        match &self.0 {
            Repr::Path(path) => SocketName::Path(Path::new(path)),
            Repr::Abstract(name) => SocketName::Abstract(name),
        }
    }

    /// The path, unless the name is abstract.
    pub fn as_path(&self) -> Option<&Path> {
        match self.name() {
            SocketName::Path(path) => Some(path),
            SocketName::Abstract(_) => None,
        }
    }

    /// Whether this is a name in the abstract namespace.
    pub fn is_abstract(&self) -> bool {
        matches!(self.0, Repr::Abstract(_))
    }

    /// The text that [`SocketPath::parse`] takes for this.
    pub fn to_os_string(&self) -> OsString {
        match &self.0 {
            Repr::Path(path) => path.clone(),
            Repr::Abstract(name) => {
                let mut text = vec![b'@'];
                text.extend_from_slice(name);
                OsString::from_vec(text)
            }
        }
    }
}

impl FromStr for SocketPath {
    type Err = SocketPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(OsStr::new(text))
    }
}

impl fmt::Display for SocketPath {
    /// The text that was given; bytes that are no UTF-8 as U+FFFD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Path(path) => write!(f, "{}", Path::new(path).display()),
            Repr::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

fn parse_abstract(name: &[u8]) -> Result<SocketPath, SocketPathError> {
    match name.len() {
        0 => Err(SocketPathError::EmptyAbstract),
        1..=ABSTRACT_MAX_LEN => Ok(SocketPath(Repr::Abstract(name.to_vec()))),
        found => Err(SocketPathError::AbstractTooLong(found)),
    }
}

fn parse_path(bytes: &[u8]) -> Result<SocketPath, SocketPathError> {
    if bytes.len() > PATH_MAX_LEN {
        return Err(SocketPathError::PathTooLong(bytes.len()));
    }
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        return Err(SocketPathError::NamesDirectory);
    }
    let mut path = Vec::with_capacity(bytes.len());
    let mut last_len = 0;
    for component in bytes.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(SocketPathError::ParentComponent),
            _ if component.len() > DIRECTORY_NAME_MAX_LEN => {
                return Err(SocketPathError::DirectoryNameTooLong(component.len()));
            }
            _ => {}
        }
        path.push(b'/');
        path.extend_from_slice(component);
        last_len = component.len();
    }
    if last_len > NAME_MAX_LEN {
        return Err(SocketPathError::NameTooLong(last_len));
    }
    Ok(SocketPath(Repr::Path(OsString::from_vec(path))))
}

/// The permission bits of a socket, `0000` to `0777`.
///
/// Displayed and parsed as octal. Connecting needs the write bit (unix(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketMode(u16);

/// A text that is no [`SocketMode`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketModeError;

impl fmt::Display for SocketModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an octal mode from 0000 to 0777")
    }
}

impl std::error::Error for SocketModeError {}

impl SocketMode {
    /// Read and write for the owner alone: `0600`.
    pub const OWNER: Self = Self(0o600);
    /// Read and write for the owner and the group: `0660`.
    pub const GROUP: Self = Self(0o660);

    /// Takes permission bits. `None` above `0o777`.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            // The guard leaves nine bits, which fit.
            #[allow(clippy::cast_possible_truncation)]
            0..=0o777 => Some(Self(bits as u16)),
            _ => None,
        }
    }

    /// The permission bits, at most `0o777`.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether those who are neither the owner nor in the group may connect.
    pub const fn is_world_accessible(self) -> bool {
        self.0 & 0o007 != 0
    }

    /// Whether the group may connect.
    pub const fn is_group_writable(self) -> bool {
        self.0 & 0o020 != 0
    }
}

impl FromStr for SocketMode {
    type Err = SocketModeError;

    /// Takes octal digits, with or without a leading `0` or `0o`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        // from_str_radix takes a sign, which no mode has.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SocketModeError);
        }
        let bits = u32::from_str_radix(digits, 8).map_err(|_| SocketModeError)?;
        Self::from_bits(bits).ok_or(SocketModeError)
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// What a socket carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A stream of bytes: `SOCK_STREAM`.
    Stream,
    /// Records in order: `SOCK_SEQPACKET`, with Unix-domain sockets only.
    SeqPacket,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "SOCK_STREAM",
            Self::SeqPacket => "SOCK_SEQPACKET",
        })
    }
}

/// Where a listener listens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// A Unix-domain socket (unix(7)).
    Unix(SocketPath),
    /// TCP over IPv4 or IPv6 (tcp(7)).
    Inet(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => fmt::Display::fmt(path, f),
            Self::Inet(address) => fmt::Display::fmt(address, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, SocketPathError>) {
        let found = SocketPath::parse(OsStr::new(text)).map(|path| path.to_string());
        assert_eq!(found, expected.map(str::to_owned), "{text:?}");
    }

    #[test]
    fn a_path_is_absolute_and_names_no_directory() {
        check("/run/a.sock", Ok("/run/a.sock"));
        check("//run/.//a.sock", Ok("/run/a.sock"));
        check("", Err(SocketPathError::Empty));
        check("run/a.sock", Err(SocketPathError::NotAbsolute));
        check("./a.sock", Err(SocketPathError::NotAbsolute));
        check("/run/a.sock/", Err(SocketPathError::NamesDirectory));
        check("/run/.", Err(SocketPathError::NamesDirectory));
        check("/", Err(SocketPathError::NamesDirectory));
        check("/run/../a.sock", Err(SocketPathError::ParentComponent));
        check("/run/..", Err(SocketPathError::ParentComponent));
        check("/run/..a/...", Ok("/run/..a/..."));
        check("/run/a\0b", Err(SocketPathError::Nul(6)));
    }

    #[test]
    fn lengths_are_bounded() {
        let name = |len: usize| format!("/run/{}", "n".repeat(len));
        check(&name(NAME_MAX_LEN - 1), Ok(&name(NAME_MAX_LEN - 1)));
        check(&name(NAME_MAX_LEN), Ok(&name(NAME_MAX_LEN)));
        check(
            &name(NAME_MAX_LEN + 1),
            Err(SocketPathError::NameTooLong(NAME_MAX_LEN + 1)),
        );
        let directory = |len: usize| format!("/{}/s", "d".repeat(len));
        check(&directory(255), Ok(&directory(255)));
        check(
            &directory(256),
            Err(SocketPathError::DirectoryNameTooLong(256)),
        );
        let path = |len: usize| {
            let tail = "/s";
            let mut path = "/dd".repeat(len / 3);
            path.truncate(len - tail.len() - 1);
            path + "d" + tail
        };
        assert_eq!(path(4095).len(), 4095);
        check(&path(4094), Ok(&path(4094)));
        check(&path(4095), Ok(&path(4095)));
        check(&path(4096), Err(SocketPathError::PathTooLong(4096)));
    }

    #[test]
    fn an_abstract_name_has_1_to_107_bytes() {
        check("@", Err(SocketPathError::EmptyAbstract));
        check("@a", Ok("@a"));
        check("@a/../b", Ok("@a/../b"));
        check("@a\0b", Err(SocketPathError::Nul(2)));
        let name = |len: usize| format!("@{}", "n".repeat(len));
        check(&name(107), Ok(&name(107)));
        check(&name(108), Err(SocketPathError::AbstractTooLong(108)));
    }

    #[test]
    fn the_text_comes_back() {
        for text in ["/run/a.sock", "@a"] {
            let path: SocketPath = text.parse().unwrap();
            assert_eq!(path.to_os_string(), text);
        }
        let bytes = OsStr::from_bytes(b"/run/\xff");
        assert_eq!(SocketPath::parse(bytes).unwrap().to_os_string(), bytes);
    }

    #[test]
    fn a_mode_is_octal_up_to_0777() {
        #[track_caller]
        fn check(text: &str, expected: Option<u32>) {
            assert_eq!(
                text.parse::<SocketMode>().ok().map(SocketMode::bits),
                expected,
                "{text:?}"
            );
        }
        check("0600", Some(0o600));
        check("600", Some(0o600));
        check("0o660", Some(0o660));
        check("0", Some(0));
        check("0777", Some(0o777));
        check("1000", None);
        check("01777", None);
        check("0800", None);
        check("+600", None);
        check("-1", None);
        check("", None);
        check("0x1ff", None);
        check("99999999999999999999", None);
        assert_eq!(SocketMode::OWNER.to_string(), "0600");
    }
}
