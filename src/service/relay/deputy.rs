//! The confused deputy: an upstream that trusts the uid of its peers sees the
//! relay's, whoever the relay admitted.
//!
//! Not here: whether the upstream really trusts it; nobody can ask that.

use std::os::unix::fs::MetadataExt;

use super::Upstream;
use crate::ids::Uid;

/// A sentence for the log of the start, if `upstream` may take other users for
/// the server's. Nothing to say about TCP, which carries no identity, or where
/// only the server's own user is admitted.
///
/// `own` is the user that the server connects as; `only_own` says whether the
/// rules can admit nobody but that user.
pub fn confused_deputy(upstream: &Upstream, own: Uid, only_own: bool) -> Option<String> {
    if only_own || !upstream.is_unix() {
        return None;
    }
    let owner = upstream
        .path()
        .and_then(|path| std::fs::metadata(path).ok());
    let owner = owner.and_then(|metadata| Uid::from_raw(metadata.uid()));
    let rights = match owner {
        _ if own == Uid::ROOT => " with the rights of root".to_owned(),
        Some(owner) if owner == own => format!(", which uid {own} owns, as its owner"),
        _ => String::new(),
    };
    Some(format!(
        "{upstream} sees uid {own} for every peer that is admitted here: if it trusts the uid of \
         its peers (PostgreSQL peer, D-Bus EXTERNAL), each of them is let in as uid {own}{rights}; \
         upstream_identity=peer passes on who they are"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(upstream: &str, own: u32, only_own: bool, expected: Option<&str>) {
        let upstream = upstream.parse().unwrap();
        let said = confused_deputy(&upstream, Uid::from_raw(own).unwrap(), only_own);
        match expected {
            Some(part) => assert!(
                said.as_deref().is_some_and(|said| said.contains(part)),
                "{said:?}"
            ),
            None => assert_eq!(said, None),
        }
    }

    #[test]
    fn it_is_said_only_where_it_can_happen() {
        check(
            "unix:@x",
            33,
            false,
            Some("let in as uid 33; upstream_identity=peer"),
        );
        check(
            "unix:/nonexistent",
            0,
            false,
            Some("as uid 0 with the rights of root"),
        );
        check("unix:@x", 33, true, None);
        check("tcp:127.0.0.1:5432", 33, false, None);
    }

    #[test]
    fn the_owner_of_the_socket_is_named() {
        let own = std::fs::metadata("/proc/self").unwrap().uid();
        if own != 0 {
            check("unix:/proc/self", own, false, Some("as its owner"));
        }
        check("unix:/", 1, false, Some("let in as uid 1; "));
    }
}
