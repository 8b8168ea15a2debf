//! How user and group names in rules become ids.
//!
//! Names are resolved once, when a rule is parsed; a decision never waits for a
//! name service.

use crate::ids::{Gid, Uid};

/// Resolves names while rules are parsed.
pub trait Names {
    /// The user with this name. `Ok(None)` if there is none.
    ///
    /// # Errors
    ///
    /// Says in words why it could not be looked up; the rule is then refused.
    fn user(&self, name: &str) -> Result<Option<Uid>, String>;

    /// The group with this name. `Ok(None)` if there is none.
    ///
    /// # Errors
    ///
    /// As for [`Names::user`].
    fn group(&self, name: &str) -> Result<Option<Gid>, String>;

    /// Whom `uid:self` stands for: the server's user, after any drop of privileges.
    fn own_user(&self) -> Uid;
}

/// Knows no names, only the server's own user: for programs that use numbers.
#[derive(Clone, Copy, Debug)]
pub struct Numeric {
    /// Whom `uid:self` stands for.
    pub own_user: Uid,
}

impl Names for Numeric {
    fn user(&self, _name: &str) -> Result<Option<Uid>, String> {
        Err(String::from(
            "this build resolves no names, write uid:NUMBER",
        ))
    }

    fn group(&self, _name: &str) -> Result<Option<Gid>, String> {
        Err(String::from(
            "this build resolves no names, write gid:NUMBER",
        ))
    }

    fn own_user(&self) -> Uid {
        self.own_user
    }
}

/// Asks the system's name service (nsswitch.conf(5)).
#[cfg(feature = "names")]
#[derive(Clone, Copy, Debug)]
pub struct SystemNames {
    /// Whom `uid:self` stands for.
    pub own_user: Uid,
}

#[cfg(feature = "names")]
impl Names for SystemNames {
    fn user(&self, name: &str) -> Result<Option<Uid>, String> {
        let found = crate::sys::account::user_by_name(name).map_err(|error| error.to_string())?;
        Ok(found.map(|account| account.uid))
    }

    fn group(&self, name: &str) -> Result<Option<Gid>, String> {
        let found = crate::sys::account::group_by_name(name).map_err(|error| error.to_string())?;
        Ok(found.map(|group| group.gid))
    }

    fn own_user(&self) -> Uid {
        self.own_user
    }
}

#[cfg(all(test, feature = "names"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_a_name_from_none() {
        let own_user = Uid::from_raw(33).unwrap();
        let names = SystemNames { own_user };
        assert_eq!(names.user("root"), Ok(Some(Uid::ROOT)));
        assert_eq!(names.group("root"), Ok(Some(Gid::ROOT)));
        assert_eq!(names.user("no such user"), Ok(None));
        assert_eq!(names.group("no such group"), Ok(None));
        assert_eq!(names.own_user(), own_user);
    }
}
