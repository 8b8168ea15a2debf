//! A small world for configurations: three users, no look-up that waits.

use std::io;

use secure_socket::config::{Accounts, Diagnostics, Surroundings};
use secure_socket::ids::{Gid, Uid};
use secure_socket::policy::Names;

/// root 0, www-data 33, shop 1000 (also in wheel, 27). `broken` can't be looked up.
pub(crate) struct World;

fn uid(number: u32) -> Uid {
    Uid::from_raw(number).expect("an id")
}

fn gid(number: u32) -> Gid {
    Gid::from_raw(number).expect("an id")
}

impl Accounts for World {
    fn user(&self, name: &str) -> io::Result<Option<(Uid, Gid)>> {
        Ok(match name {
            "root" => Some((uid(0), gid(0))),
            "www-data" => Some((uid(33), gid(33))),
            "shop" => Some((uid(1000), gid(1000))),
            "broken" => return Err(io::ErrorKind::TimedOut.into()),
            _ => None,
        })
    }

    fn user_of(&self, user: Uid) -> io::Result<Option<(String, Gid)>> {
        Ok(match user.as_raw() {
            0 => Some(("root".to_owned(), gid(0))),
            33 => Some(("www-data".to_owned(), gid(33))),
            1000 => Some(("shop".to_owned(), gid(1000))),
            _ => None,
        })
    }

    fn group(&self, name: &str) -> io::Result<Option<Gid>> {
        match name {
            "wheel" => Ok(Some(gid(27))),
            _ => Ok(Accounts::user(self, name)?.map(|(_, gid)| gid)),
        }
    }

    fn groups_of(&self, name: &str, primary: Gid) -> io::Result<Vec<Gid>> {
        let also = (name == "shop").then_some(gid(27));
        Ok([primary].into_iter().chain(also).collect())
    }
}

impl Names for World {
    fn user(&self, name: &str) -> Result<Option<Uid>, String> {
        let found = Accounts::user(self, name).map_err(|error| error.to_string())?;
        Ok(found.map(|(uid, _)| uid))
    }

    fn group(&self, name: &str) -> Result<Option<Gid>, String> {
        Accounts::group(self, name).map_err(|error| error.to_string())
    }

    fn own_user(&self) -> Uid {
        uid(1000)
    }
}

pub(crate) const AS_ROOT: Surroundings<'static> = Surroundings {
    euid: Uid::ROOT,
    egid: Gid::ROOT,
    runtime_dir: None,
    accounts: &World,
};

/// Each place lies inside of what was given, and nothing shown steers a terminal.
pub(crate) fn check_diagnostics(found: &Diagnostics) {
    let text = found.to_string();
    assert!(text.lines().all(crate::is_quiet), "{text:?}");
    for place in found.iter().filter_map(|one| one.place.as_ref()) {
        let length = u32::try_from(place.line.chars().count()).expect("a line is below 4G");
        assert!(place.row >= 1 && place.column >= 1 && place.start <= place.column);
        assert!(place.column <= length + 1, "{place:?}");
        assert!(place.start + place.width <= length + 2, "{place:?}");
    }
}
