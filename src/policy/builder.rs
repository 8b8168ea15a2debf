//! From the texts of rules to a policy, for programs that embed the library.
//!
//! Not here: options and files (`config`), which give rules with places and carets.

#![forbid(unsafe_code)]

use super::check::Policy;
use super::names::Names;
use super::rule::{Rule, RuleError};
use crate::ids::Uid;

impl Policy {
    /// A policy of one rule that admits, such as `group:ops` or
    /// `uid:33,exe:/usr/sbin/nginx`.
    ///
    /// Names of users and groups are looked up with the feature `names`; without it
    /// write `uid:` and `gid:`. `uid:self` is the user that this process runs as.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    ///
    /// ```
    /// use secure_socket::Policy;
    ///
    /// let policy = Policy::parse("uid:33,gid:27")?;
    /// assert_eq!(policy.allow_rules()[0].to_string(), "uid:33,gid:27");
    /// assert_eq!(Policy::parse("uid:x").unwrap_err().column, 1);
    /// # Ok::<(), secure_socket::policy::RuleError>(())
    /// ```
    pub fn parse(rule: &str) -> Result<Self, RuleError> {
        Self::builder().allow(rule).build()
    }

    /// Begins a policy of several rules.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            allow: Vec::new(),
            deny: Vec::new(),
            own_user: None,
        }
    }
}

/// Collects the rules of a policy.
///
/// ```
/// use secure_socket::Policy;
///
/// let policy = Policy::builder()
///     .allow("gid:27")
///     .allow("uid:self")
///     .deny("uid:65533")
///     .build()?;
/// assert_eq!(policy.allow_rules().len(), 2);
/// # Ok::<(), secure_socket::policy::RuleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolicyBuilder {
    allow: Vec<String>,
    deny: Vec<String>,
    own_user: Option<Uid>,
}

impl PolicyBuilder {
    /// A rule that admits. Any one of them does. Without any, the server's own user
    /// is admitted and nobody else.
    #[must_use]
    pub fn allow(mut self, rule: impl Into<String>) -> Self {
        self.allow.push(rule.into());
        self
    }

    /// A rule that refuses. It wins over every rule that admits.
    #[must_use]
    pub fn deny(mut self, rule: impl Into<String>) -> Self {
        self.deny.push(rule.into());
        self
    }

    /// The user that the server will run as, where it is to become another one
    /// (`RunAs`); by default the effective user of this process.
    #[must_use]
    pub fn own_user(mut self, uid: Uid) -> Self {
        self.own_user = Some(uid);
        self
    }

    /// Reads the rules, and looks up the names in them: through the system's name
    /// service with the feature `names`, else not at all.
    ///
    /// # Errors
    /// The first rule that is wrong; the message says what, the column where in it.
    pub fn build(self) -> Result<Policy, RuleError> {
        let own_user = self.own_user.unwrap_or_else(effective_user);
        #[cfg(feature = "names")]
        let names = super::SystemNames { own_user };
        #[cfg(not(feature = "names"))]
        let names = super::Numeric { own_user };
        self.build_with(&names)
    }

    /// The same, with a resolver of names of your own, which also says who
    /// `uid:self` is.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_with(self, names: &dyn Names) -> Result<Policy, RuleError> {
        let read = |texts: &[String]| -> Result<Vec<Rule>, RuleError> {
            texts.iter().map(|text| Rule::parse(text, names)).collect()
        };
        let (allow, deny) = (read(&self.allow)?, read(&self.deny)?);
        Ok(Policy::new(allow, deny, names.own_user()))
    }
}

/// The effective user of this process.
fn effective_user() -> Uid {
    // No process has the id -1 (setresuid(2)); were it so, it would be nobody's.
    Uid::from_raw(rustix::process::geteuid().as_raw()).unwrap_or(Uid::OVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Numeric;

    #[test]
    fn without_a_rule_the_own_user_alone_is_admitted() {
        let policy = Policy::builder().own_user(Uid::ROOT).build().unwrap();
        assert_eq!(policy.only_one_uid(), Some(Uid::ROOT));
    }

    #[test]
    fn a_wrong_rule_builds_nothing() {
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let wrong = Policy::builder()
            .allow("uid:1")
            .deny("uid:1,")
            .build_with(&names);
        assert_eq!(wrong.map_err(|error| error.column), Err(7));
    }
}
