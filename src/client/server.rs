//! Who the server must be.

use std::os::fd::BorrowedFd;

use crate::ids::Uid;
use crate::peer::{Checker, CheckerConfig, Facts, Inspector, Needs, Peer, PidfdSource, Pins};
use crate::policy::{Names, Policy, Rule, RuleError};

use super::error::ClientError;

/// Who the server must be. The kernel vouches for it: what it reports is who
/// called listen(2) (unix(7), `SO_PEERCRED`).
#[derive(Clone, Debug)]
pub struct Server {
    policy: Policy,
    expected: String,
}

impl Server {
    /// Root, or the user that this process runs as.
    pub fn root_or_self() -> Self {
        let own_user = own_user();
        let policy = |rules| Policy::new(rules, Vec::new(), own_user);
        let root = Rule::parse("uid:0", &crate::policy::Numeric { own_user });
        let own = Rule::parse("uid:self", &crate::policy::Numeric { own_user });
        // A list without rules admits the own user alone.
        Self {
            policy: policy([root, own].into_iter().flatten().collect()),
            expected: String::from("uid:0 or uid:self"),
        }
    }

    /// Whoever meets this rule, written as for `allow`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str, names: &dyn Names) -> Result<Self, RuleError> {
        let rule = Rule::parse(text, names)?;
        let expected = rule.text().to_string();
        Ok(Self {
            policy: Policy::new(vec![rule], Vec::new(), own_user()),
            expected,
        })
    }

    /// Checks the other end of a connected socket. Returns what is known of it.
    ///
    /// # Errors
    ///
    /// [`ClientError::Untrusted`], or [`ClientError::CannotVerify`] where a path of
    /// the rule isn't protected or `/proc` can't be read.
    pub fn verify(&self, socket: BorrowedFd<'_>) -> Result<Facts, ClientError> {
        let needs = self.policy.needs();
        let peer = Peer::from_socket(socket, needs, PidfdSource::Socket);
        let mut facts = peer.facts().clone();
        let inspector = self.inspector(needs)?;
        loop {
            let asked = self.policy.asks(&facts);
            if asked.is_empty() {
                break;
            }
            inspector.learn(&peer, &mut facts, asked);
            if !facts.unasked(asked).is_empty() {
                break;
            }
        }
        match self.policy.check(&facts) {
            Ok(_) => Ok(facts),
            Err(_) => Err(ClientError::Untrusted {
                found: facts.to_string(),
                expected: self.expected.clone(),
            }),
        }
    }

    fn inspector(&self, needs: Needs) -> Result<Inspector, ClientError> {
        let (paths, pids) = (self.policy.exe_paths(), self.policy.pids());
        let pins = Pins::open(&paths, &pids, None).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ClientError::CannotVerify(all.join("; "))
        })?;
        let checker = if needs.has_any(Needs::PROC) {
            Some(Checker::start(CheckerConfig::default())?)
        } else {
            None
        };
        Ok(Inspector::new(pins, checker))
    }
}

fn own_user() -> Uid {
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}
