//! Text to criteria: `uid:33`, `exe:/usr/sbin/nginx`, `any`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::criterion::{Cidr, Criterion, CriterionError, KEYWORDS};
use super::names::Names;
use super::text::unescape;
use crate::ids::{Gid, Pid, Uid};

/// What `comm` can hold at most, in bytes (proc_pid_comm(5)).
const COMM_BYTES: usize = 15;

impl Criterion {
    /// Reads one criterion, `keyword:value`, or `any`.
    ///
    /// # Errors
    ///
    /// Says what is wrong, what was expected, and the nearest keyword.
    pub fn parse(text: &str, names: &dyn Names) -> Result<Self, CriterionError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let Some((keyword, value)) = text.split_once(':') else {
            return Err(unknown_keyword(text, "expected a criterion, keyword:value"));
        };
        Self::from_parts(keyword, value, names)
    }

    /// Reads the value that belongs to a keyword: `("uid", "33")`.
    ///
    /// # Errors
    ///
    /// As for [`Criterion::parse`].
    pub fn from_parts(
        keyword: &str,
        value: &str,
        names: &dyn Names,
    ) -> Result<Self, CriterionError> {
        let bytes = unescape(value).map_err(CriterionError)?;
        if bytes.is_empty() && KEYWORDS.contains(&keyword) && keyword != "any" {
            return Err(error(format!("{keyword}: expected a value, found nothing")));
        }
        match keyword {
            "uid" => user_id(value, names),
            "user" => user_name(&utf8(keyword, bytes)?, names),
            "gid" => group_id(value),
            "group" => group_name(&utf8(keyword, bytes)?, names),
            "pid" => pid(value),
            "exe" => exe(bytes),
            "sha256" => sha256(value),
            "label" => Ok(Self::Label(without_nul(keyword, bytes)?)),
            "name" => comm(without_nul(keyword, bytes)?),
            "args" => Ok(Self::Args(without_nul(keyword, bytes)?)),
            "address" => address(value),
            "any" => Err(error(String::from("any: takes no value"))),
            _ => Err(unknown_keyword(keyword, "unknown criterion")),
        }
    }
}

fn error(message: String) -> CriterionError {
    CriterionError(message)
}

fn expected(keyword: &str, what: &str, found: &str) -> CriterionError {
    error(format!("{keyword}: expected {what}, found {found:?}"))
}

fn utf8(keyword: &str, bytes: Vec<u8>) -> Result<String, CriterionError> {
    String::from_utf8(bytes).map_err(|_| error(format!("{keyword}: expected text in UTF-8")))
}

fn without_nul(keyword: &str, bytes: Vec<u8>) -> Result<Vec<u8>, CriterionError> {
    if bytes.contains(&0) {
        return Err(error(format!("{keyword}: a NUL never matches")));
    }
    Ok(bytes)
}

/// A decimal number without sign, blank or leading plus.
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn user_id(value: &str, names: &dyn Names) -> Result<Criterion, CriterionError> {
    if value == "self" {
        return Ok(Criterion::User(
            names.own_user(),
            Some(String::from("self")),
        ));
    }
    let uid = decimal(value).and_then(Uid::from_raw);
    uid.map(|uid| Criterion::User(uid, None))
        .ok_or_else(|| expected("uid", "a number from 0 to 4294967294, or self", value))
}

fn group_id(value: &str) -> Result<Criterion, CriterionError> {
    let gid = decimal(value).and_then(Gid::from_raw);
    gid.map(|gid| Criterion::Group(gid, None))
        .ok_or_else(|| expected("gid", "a number from 0 to 4294967294", value))
}

fn user_name(name: &str, names: &dyn Names) -> Result<Criterion, CriterionError> {
    if name == "self" {
        return Err(error(String::from(
            "user: for the server's own user write uid:self",
        )));
    }
    match names.user(name) {
        Ok(Some(uid)) => Ok(Criterion::User(uid, Some(name.to_owned()))),
        Ok(None) => Err(error(format!("user: no user is named {name:?}"))),
        Err(why) => Err(error(format!("user: can not look up {name:?}: {why}"))),
    }
}

fn group_name(name: &str, names: &dyn Names) -> Result<Criterion, CriterionError> {
    match names.group(name) {
        Ok(Some(gid)) => Ok(Criterion::Group(gid, Some(name.to_owned()))),
        Ok(None) => Err(error(format!("group: no group is named {name:?}"))),
        Err(why) => Err(error(format!("group: can not look up {name:?}: {why}"))),
    }
}

fn pid(value: &str) -> Result<Criterion, CriterionError> {
    let pid = decimal(value)
        .and_then(|raw| i32::try_from(raw).ok())
        .and_then(Pid::from_raw);
    pid.map(Criterion::Pid)
        .ok_or_else(|| expected("pid", "a number from 1 to 2147483647", value))
}

/// Dots and doubled slashes are refused: the text names one place in one way.
fn exe(bytes: Vec<u8>) -> Result<Criterion, CriterionError> {
    let bytes = without_nul("exe", bytes)?;
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    let mut components = bytes.split(|byte| *byte == b'/');
    let absolute = components.next().is_some_and(<[u8]>::is_empty);
    let plain = components.all(|part| !part.is_empty() && part != b"." && part != b"..");
    if !absolute || !plain {
        return Err(expected(
            "exe",
            "an absolute path without \"//\", \".\" or \"..\"",
            &shown,
        ));
    }
    Ok(Criterion::Exe(PathBuf::from(OsString::from_vec(bytes))))
}

fn sha256(value: &str) -> Result<Criterion, CriterionError> {
    let wrong = || expected("sha256", "64 hexadecimal digits", value);
    let digits: Option<Vec<u8>> = value
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|number| u8::try_from(number).ok())
        })
        .collect();
    let digits = digits.ok_or_else(wrong)?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .filter_map(|pair| pair.first()?.checked_mul(16)?.checked_add(*pair.get(1)?))
        .collect();
    let exact = digits.len() == 64;
    let digest = <[u8; 32]>::try_from(bytes).ok().filter(|_| exact);
    digest.map(Criterion::Sha256).ok_or_else(wrong)
}

/// A longer name could never match, so it is an error and not a silent denial.
fn comm(name: Vec<u8>) -> Result<Criterion, CriterionError> {
    if name.len() > COMM_BYTES {
        let shown = String::from_utf8_lossy(&name).into_owned();
        return Err(expected(
            "name",
            "at most 15 bytes, as the kernel keeps",
            &shown,
        ));
    }
    Ok(Criterion::Name(name))
}

fn address(value: &str) -> Result<Criterion, CriterionError> {
    let wrong = || {
        expected(
            "address",
            "an address or ADDRESS/PREFIX without host bits",
            value,
        )
    };
    let (address, prefix) = match value.split_once('/') {
        Some((address, prefix)) => (address, Some(decimal(prefix).ok_or_else(wrong)?)),
        None => (value, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix = u8::try_from(prefix.unwrap_or(whole)).map_err(|_| wrong())?;
    Cidr::new(address, prefix)
        .map(Criterion::Address)
        .ok_or_else(wrong)
}

fn unknown_keyword(found: &str, what: &str) -> CriterionError {
    let nearest = KEYWORDS
        .into_iter()
        .map(|keyword| (distance(found, keyword), keyword))
        .filter(|(distance, keyword)| *distance <= keyword.len() / 2)
        .min();
    match nearest {
        Some((_, keyword)) => error(format!("{what}, found {found:?}; did you mean {keyword:?}")),
        None => error(format!("{what}, found {found:?}")),
    }
}

/// Levenshtein distance, of the first 32 bytes.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<u8>, Vec<u8>) = (
        left.bytes().take(32).collect(),
        right.bytes().take(32).collect(),
    );
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, a) in left.iter().enumerate() {
        let mut diagonal = above;
        let mut before = above.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal.saturating_add(usize::from(a != b));
            diagonal = *cell;
            before = before.min(diagonal).saturating_add(1).min(replaced);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Numeric;

    const NAMES: Numeric = Numeric {
        own_user: Uid::ROOT,
    };

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match Criterion::parse(text, &NAMES) {
            Ok(criterion) => {
                assert_eq!(criterion.to_string(), expected);
                assert_eq!(Criterion::parse(expected, &NAMES).as_ref(), Ok(&criterion));
            }
            Err(error) => assert_eq!(format!("error: {error}"), expected),
        }
    }

    #[test]
    fn ids_end_before_the_number_that_means_none() {
        check("uid:0", "uid:0");
        check("uid:4294967294", "uid:4294967294");
        let wrong = "expected a number from 0 to 4294967294";
        check(
            "uid:4294967295",
            &format!("error: uid: {wrong}, or self, found \"4294967295\""),
        );
        check(
            "uid:-1",
            &format!("error: uid: {wrong}, or self, found \"-1\""),
        );
        check(
            "uid:+1",
            &format!("error: uid: {wrong}, or self, found \"+1\""),
        );
        check("gid:2OO", &format!("error: gid: {wrong}, found \"2OO\""));
        check("uid:self", "uid:self");
        check("pid:1", "pid:1");
        check(
            "pid:0",
            "error: pid: expected a number from 1 to 2147483647, found \"0\"",
        );
        check(
            "pid:2147483648",
            "error: pid: expected a number from 1 to 2147483647, found \"2147483648\"",
        );
    }

    struct Known;

    impl Names for Known {
        fn user(&self, name: &str) -> Result<Option<Uid>, String> {
            Ok(Uid::from_raw(33).filter(|_| name == "www, data"))
        }

        fn group(&self, name: &str) -> Result<Option<Gid>, String> {
            Ok(Gid::from_raw(27).filter(|_| name == "sudo"))
        }

        fn own_user(&self) -> Uid {
            Uid::ROOT
        }
    }

    #[test]
    fn names_are_looked_up_and_printed_as_given() {
        let parse = |text: &str| Criterion::parse(text, &Known);
        let user = parse("user:www\\, data").unwrap();
        assert_eq!(
            user,
            Criterion::User(Uid::from_raw(33).unwrap(), Some("www, data".into()))
        );
        assert_eq!(user.to_string(), "user:www\\, data");
        let group = parse("group:sudo").unwrap();
        assert_eq!(
            group,
            Criterion::Group(Gid::from_raw(27).unwrap(), Some("sudo".into()))
        );
        assert_eq!(group.to_string(), "group:sudo");
        for (text, wrong) in [
            ("user:x", "user: no user is named \"x\""),
            ("group:x", "group: no group is named \"x\""),
            (
                "user:self",
                "user: for the server's own user write uid:self",
            ),
            ("user:\\xff", "user: expected text in UTF-8"),
            ("group:\\xff", "group: expected text in UTF-8"),
        ] {
            assert_eq!(parse(text), Err(CriterionError(wrong.into())), "{text}");
        }
    }

    #[test]
    fn a_name_that_can_not_be_looked_up_is_refused() {
        check(
            "user:x",
            "error: user: can not look up \"x\": this build resolves no names, write uid:NUMBER",
        );
        check(
            "group:x",
            "error: group: can not look up \"x\": this build resolves no names, write gid:NUMBER",
        );
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        check("exe:/usr/sbin/nginx", "exe:/usr/sbin/nginx");
        check("exe:/a\\,b", "exe:/a\\,b");
        for path in ["nginx", "/a//b", "/a/../b", "/a/.", "/a/", "/"] {
            let wrong = "expected an absolute path without \"//\", \".\" or \"..\"";
            check(
                &format!("exe:{path}"),
                &format!("error: exe: {wrong}, found {path:?}"),
            );
        }
    }

    #[test]
    fn a_digest_has_64_digits() {
        let digits = "0123456789abcdef".repeat(4);
        check(
            &format!("sha256:{}", digits.to_uppercase()),
            &format!("sha256:{digits}"),
        );
        for wrong in [
            &digits[1..],
            &format!("{digits}0"),
            &digits.replace('f', "g"),
        ] {
            let message = "expected 64 hexadecimal digits";
            check(
                &format!("sha256:{wrong}"),
                &format!("error: sha256: {message}, found {wrong:?}"),
            );
        }
    }

    #[test]
    fn a_name_fits_the_kernel() {
        check("name:123456789012345", "name:123456789012345");
        check(
            "name:1234567890123456",
            "error: name: expected at most 15 bytes, as the kernel keeps, found \"1234567890123456\"",
        );
        check("name:a\\x00", "error: name: a NUL never matches");
        check("args:", "error: args: expected a value, found nothing");
        check("args:a\\x00", "error: args: a NUL never matches");
        check("label:a\\x00", "error: label: a NUL never matches");
        check("label:a b", "label:a b");
    }

    #[test]
    fn addresses_default_to_one_host() {
        check("address:127.0.0.1", "address:127.0.0.1/32");
        check("address:::1", "address:::1/128");
        check("address:10.0.0.0/8", "address:10.0.0.0/8");
        let wrong = "expected an address or ADDRESS/PREFIX without host bits";
        check(
            "address:10.0.0.1/8",
            &format!("error: address: {wrong}, found \"10.0.0.1/8\""),
        );
    }

    #[test]
    fn the_nearest_keyword_is_named() {
        check(
            "usr:x",
            "error: unknown criterion, found \"usr\"; did you mean \"user\"",
        );
        check(
            "gruop:x",
            "error: unknown criterion, found \"gruop\"; did you mean \"group\"",
        );
        check("zzzzzz:x", "error: unknown criterion, found \"zzzzzz\"");
        check("any:1", "error: any: takes no value");
        check("any", "any");
    }
}
