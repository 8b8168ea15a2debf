//! Tests of a policy without sockets, users or root: peers are described in words, and
//! the policy judges them as it would judge the real ones.
//!
//!     cargo test --example policy_double      runs the tests
//!     policy_double "uid:33,gid:33"           says what becomes of such a peer

use std::error::Error;

use secure_socket::Policy;
use secure_socket::ids::Uid;
use secure_socket::policy::{Facts, Numeric, describe};

const SHOP: &str = "uid:33,exe:/usr/bin/shop-worker";
const OPERATORS: &str = "gid:27";

/// The policy of the program, with its names resolved as on the target machine.
fn policy() -> Result<Policy, Box<dyn Error>> {
    let names = Numeric {
        own_user: Uid::ROOT,
    };
    let policy = Policy::builder()
        .allow(SHOP)
        .allow(OPERATORS)
        .deny("uid:66");
    Ok(policy.build_with(&names)?)
}

/// A double of a peer: what is not mentioned can't be found out about it.
fn peer(words: &str) -> Result<Facts, Box<dyn Error>> {
    Ok(describe(
        words,
        &Numeric {
            own_user: Uid::ROOT,
        },
    )?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words = std::env::args()
        .nth(1)
        .unwrap_or_else(|| String::from("uid:33,gid:33"));
    print!("{}", policy()?.explain(&peer(&words)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secure_socket::policy::DenialReason;

    #[track_caller]
    fn check(words: &str, expected: Result<u32, DenialReason>) {
        let verdict = policy().unwrap().check(&peer(words).unwrap());
        let found = verdict.map(|peer| peer.rule_number());
        assert_eq!(found.map_err(|denial| denial.reason), expected, "{words}");
    }

    #[test]
    fn the_worker_is_admitted_and_no_other_program_of_its_user() {
        check("uid:33,gid:33,groups:33,exe:/usr/bin/shop-worker", Ok(1));
        check(
            "uid:33,gid:33,groups:33,exe:/bin/sh",
            Err(DenialReason::NoRule),
        );
    }

    #[test]
    fn operators_are_admitted_by_any_of_their_groups() {
        check("uid:1000,gid:27,groups:27", Ok(2));
        check("uid:1000,gid:1000,groups:27", Ok(2));
        check("uid:1000,gid:1000,groups:1000", Err(DenialReason::NoRule));
    }

    #[test]
    fn the_one_who_left_is_denied_whatever_his_groups() {
        check("uid:66,gid:27,groups:27", Err(DenialReason::DenyRule));
    }

    #[test]
    fn root_is_not_exempt() {
        check("uid:0,gid:0,groups:0", Err(DenialReason::NoRule));
    }
}
