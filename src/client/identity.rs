//! Who the server must be.

use std::os::fd::BorrowedFd;

use super::error::ClientError;
use crate::ids::Uid;
use crate::policy::{
    Authorized, Names, Numeric, Policy, Rule, RuleError, ServerError, verify_server,
};

/// Who the server must be, before it is told anything. The kernel vouches for it:
/// what it reports is who called listen(2) (unix(7), `SO_PEERCRED`).
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    policy: Policy,
}

impl ServerIdentity {
    /// Root, or the user that this process runs as.
    pub fn root_or_self() -> Self {
        let own_user = own_user();
        let rule = |text| Rule::parse(text, &Numeric { own_user });
        // Both texts are rules; a list without any would admit the own user alone.
        Self::meets(
            [rule("uid:0"), rule("uid:self")]
                .into_iter()
                .flatten()
                .collect(),
        )
    }

    /// Whoever meets one of these rules; the own user if there is none.
    pub fn meets(rules: Vec<Rule>) -> Self {
        Self {
            policy: Policy::new(rules, Vec::new(), own_user()),
        }
    }

    /// Whoever meets this rule, written as for `allow`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str, names: &dyn Names) -> Result<Self, RuleError> {
        Rule::parse(text, names).map(|rule| Self::meets(vec![rule]))
    }

    /// Checks the other end of a connected socket.
    ///
    /// # Errors
    ///
    /// [`ClientError::Untrusted`], or [`ClientError::CannotVerify`] where a path of
    /// the rule isn't protected or `/proc` can't be read.
    pub fn verify(&self, socket: BorrowedFd<'_>) -> Result<Authorized, ClientError> {
        verify_server(socket, &self.policy).map_err(|error| match error {
            ServerError::Denied { .. } => ClientError::Untrusted(error),
            _ => ClientError::CannotVerify(error),
        })
    }
}

fn own_user() -> Uid {
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}
