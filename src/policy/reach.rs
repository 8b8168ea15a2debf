//! Whom a policy can admit at all: for defaults, for start-up and for warnings.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::check::Policy;
use super::criterion::Criterion;
use super::rule::Rule;
use crate::ids::{Gid, Pid, Uid};
use crate::peer::Needs;

/// What an operator should know about a rule. A policy with warnings is valid.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Warning {
    /// An allow rule admits everyone.
    AdmitsEveryone {
        /// Its number, from 1.
        number: u32,
    },
    /// An allow rule rests on names and arguments alone, which any program can choose.
    Forgeable {
        /// Its number, from 1.
        number: u32,
        /// Its text.
        text: String,
    },
    /// A deny rule on names or arguments: whoever it means can choose others.
    Evadable {
        /// Its number, from 1.
        number: u32,
        /// Its text.
        text: String,
    },
    /// An allow rule on an interpreter, which runs whatever it is given.
    Interpreter {
        /// Its number, from 1.
        number: u32,
        /// The interpreter.
        path: PathBuf,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdmitsEveryone { number } => {
                write!(
                    f,
                    "allow rule {number} admits everyone who can reach the socket"
                )
            }
            Self::Forgeable { number, text } => write!(
                f,
                "allow rule {number} ({text}) is forgeable: any program can choose its name and \
                 arguments; add uid, gid or exe"
            ),
            Self::Evadable { number, text } => write!(
                f,
                "deny rule {number} ({text}) is forgeable: a program evades it by another name \
                 or other arguments"
            ),
            Self::Interpreter { number, path } => write!(
                f,
                "allow rule {number} names an interpreter ({}): it admits every script that this \
                 runs",
                super::escape(path.as_os_str().as_bytes())
            ),
        }
    }
}

impl Policy {
    /// The users that it can admit. `None` if some rule names no user.
    pub fn authorised_users(&self) -> Option<BTreeSet<Uid>> {
        self.allow
            .iter()
            .map(users_of)
            .try_fold(BTreeSet::new(), |mut all, users| {
                all.extend(users?);
                Some(all)
            })
    }

    /// The only user that it can admit, if there is just one.
    pub fn only_one_uid(&self) -> Option<Uid> {
        let users = self.authorised_users()?;
        let mut users = users.into_iter();
        users.next().filter(|_| users.next().is_none())
    }

    /// The only user that it can admit and that needs a right to reach the socket, if
    /// there is just one: neither the server's own, who owns it, nor root.
    pub fn only_other_uid(&self) -> Option<Uid> {
        let users = self.authorised_users()?;
        let mut others = users
            .into_iter()
            .filter(|uid| *uid != self.own_user() && *uid != Uid::ROOT);
        others.next().filter(|_| others.next().is_none())
    }

    /// The groups that its allow rules name.
    pub fn authorised_groups(&self) -> BTreeSet<Gid> {
        let criteria = self.allow.iter().flat_map(Rule::criteria);
        criteria
            .filter_map(|one| {
                if let Criterion::Group(gid, _) = one {
                    Some(*gid)
                } else {
                    None
                }
            })
            .collect()
    }

    /// The one group that its allow rules name, if there is just one.
    pub fn single_group(&self) -> Option<Gid> {
        let groups = self.authorised_groups();
        let mut groups = groups.into_iter();
        groups.next().filter(|_| groups.next().is_none())
    }

    /// Whether it can admit anyone but the server's own user, who therefore must
    /// be able to reach the socket.
    pub fn admits_others(&self) -> bool {
        self.only_one_uid() != Some(self.own_user())
    }

    /// Whether a peer over the internet can be admitted: it has no user.
    pub fn can_admit_internet(&self) -> bool {
        let possible = |one: &Criterion| matches!(one, Criterion::Address(_) | Criterion::Any);
        self.allow.iter().any(|rule| {
            rule.clauses()
                .iter()
                .all(|clause| clause.iter().any(possible))
        })
    }

    /// Whether rules tell the processes of this user apart, so that one program's
    /// denials must not count against another of the same user. `None` stands for
    /// a peer without user.
    pub fn tells_processes_apart(&self, uid: Option<Uid>) -> bool {
        let concerns = |rule: &Rule| match users_of(rule) {
            None => true,
            Some(users) => uid.is_some_and(|uid| users.contains(&uid)),
        };
        let mut rules = self.allow.iter().chain(&self.deny);
        rules.any(|rule| rule.needs().has_any(Needs::PROCESS) && concerns(rule))
    }

    /// Whether executables must be read for which the process checker needs
    /// CAP_SYS_PTRACE (ptrace(2), "access mode checking"): those of other users, and
    /// those of root, whose processes have capabilities that the server gives up.
    pub fn needs_ptrace_capability(&self) -> bool {
        let own = BTreeSet::from([self.own_user()]);
        let is_own = |users: BTreeSet<Uid>| users == own && self.own_user() != Uid::ROOT;
        let mut rules = self.allow.iter().chain(&self.deny).chain(&self.others);
        rules.any(|rule| {
            rule.needs().has_any(Needs::EXECUTABLE) && !users_of(rule).is_some_and(is_own)
        })
    }

    /// The paths of all `exe:` criteria, to be pinned.
    pub fn exe_paths(&self) -> BTreeSet<PathBuf> {
        self.criteria()
            .filter_map(|one| {
                if let Criterion::Exe(path) = one {
                    Some(path.as_path())
                } else {
                    None
                }
            })
            .map(Path::to_path_buf)
            .collect()
    }

    /// The numbers of all `pid:` criteria, to be pinned.
    pub fn pids(&self) -> BTreeSet<Pid> {
        self.criteria()
            .filter_map(|one| {
                if let Criterion::Pid(pid) = one {
                    Some(*pid)
                } else {
                    None
                }
            })
            .collect()
    }

    /// What an operator should know.
    pub fn warnings(&self) -> Vec<Warning> {
        let everyone = |rule: &Rule| {
            rule.clauses()
                .iter()
                .all(|clause| clause.contains(&Criterion::Any))
        };
        let allow = (1..).zip(&self.allow).filter_map(|(number, rule)| {
            if everyone(rule) {
                return Some(Warning::AdmitsEveryone { number });
            }
            rule.is_forgeable().then(|| Warning::Forgeable {
                number,
                text: rule.to_string(),
            })
        });
        let deny = (1..).zip(&self.deny).filter_map(|(number, rule)| {
            let evadable = rule.criteria().any(Criterion::is_forgeable);
            evadable.then(|| Warning::Evadable {
                number,
                text: rule.to_string(),
            })
        });
        let interpreters = (1..).zip(&self.allow).flat_map(|(number, rule)| {
            let paths = rule.criteria().filter_map(|one| match one {
                Criterion::Exe(path) if is_interpreter(path) => Some(path.clone()),
                _ => None,
            });
            paths.map(move |path| Warning::Interpreter { number, path })
        });
        allow.chain(interpreters).chain(deny).collect()
    }

    fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        let rules = self.allow.iter().chain(&self.deny).chain(&self.others);
        rules.flat_map(Rule::criteria)
    }
}

/// Whether the last name of a path, its version cut off, is a known interpreter's.
fn is_interpreter(path: &Path) -> bool {
    const KNOWN: [&str; 20] = [
        "ash", "awk", "bash", "busybox", "dash", "env", "fish", "gawk", "java", "ksh", "lua",
        "mawk", "node", "perl", "php", "python", "ruby", "sh", "tclsh", "zsh",
    ];
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    KNOWN.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-'))
}

/// The users for whom a rule can hold. `None` if it names none.
fn users_of(rule: &Rule) -> Option<BTreeSet<Uid>> {
    let uid = |one: &Criterion| {
        if let Criterion::User(uid, _) = one {
            Some(*uid)
        } else {
            None
        }
    };
    let clauses = rule.clauses().iter();
    let sets = clauses.filter_map(|clause| clause.iter().map(uid).collect::<Option<BTreeSet<_>>>());
    sets.reduce(|left, right| left.intersection(&right).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Numeric;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let own_user = Uid::from_raw(1).unwrap();
        let names = Numeric { own_user };
        let rules = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| Rule::parse(text, &names).unwrap())
                .collect::<Vec<_>>()
        };
        Policy::new(rules(allow), rules(deny), own_user)
    }

    #[test]
    fn one_user_is_one_user_however_it_is_said() {
        let one = |allow: &[&str]| policy(allow, &[]).only_one_uid().map(Uid::as_raw);
        assert_eq!(one(&[]), Some(1));
        assert_eq!(one(&["uid:33", "uid:33,exe:/a"]), Some(33));
        assert_eq!(one(&["uid:33|uid:34,uid:33"]), Some(33));
        assert_eq!(one(&["uid:33", "uid:34"]), None);
        assert_eq!(one(&["uid:33", "gid:1"]), None);
        assert_eq!(one(&["uid:33|gid:1"]), None);
    }

    #[test]
    fn neither_root_nor_the_server_needs_a_right_to_the_socket() {
        let other = |allow: &[&str]| policy(allow, &[]).only_other_uid().map(Uid::as_raw);
        assert_eq!(other(&["uid:0|uid:self|uid:33"]), Some(33));
        assert_eq!(other(&["uid:33|uid:34"]), None);
        assert_eq!(other(&["uid:0"]), None);
        assert_eq!(other(&["uid:33", "exe:/a"]), None);
    }

    #[test]
    fn the_users_are_known_only_if_every_rule_names_some() {
        let users = |allow: &[&str]| {
            let users = policy(allow, &[]).authorised_users();
            users.map(|users| users.into_iter().map(Uid::as_raw).collect::<Vec<_>>())
        };
        assert_eq!(users(&[]), Some(vec![1]));
        assert_eq!(users(&["uid:34|uid:33", "uid:33"]), Some(vec![33, 34]));
        assert_eq!(users(&["uid:33", "any"]), None);
    }

    #[test]
    fn one_group_is_one_group_however_often_it_is_said() {
        let one = |allow: &[&str]| policy(allow, &["gid:9"]).single_group().map(Gid::as_raw);
        assert_eq!(one(&["uid:1"]), None);
        assert_eq!(one(&["gid:4", "uid:1,gid:4"]), Some(4));
        assert_eq!(one(&["gid:4|gid:5"]), None);
        let groups = policy(&["gid:4|gid:5", "uid:1"], &["gid:9"]).authorised_groups();
        assert_eq!(
            groups.into_iter().map(Gid::as_raw).collect::<Vec<_>>(),
            [4, 5]
        );
    }

    #[test]
    fn whatever_a_rule_of_any_list_names_is_pinned() {
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let other = Rule::parse("exe:/c|pid:3", &names).unwrap();
        let policy = policy(&["uid:1,exe:/a|pid:1"], &["exe:/b", "pid:2,exe:/a"]);
        let policy = policy.also_learning_for(vec![other]);
        assert_eq!(
            policy.exe_paths(),
            ["/a", "/b", "/c"].map(PathBuf::from).into()
        );
        let pids: Vec<_> = policy.pids().into_iter().map(Pid::as_raw).collect();
        assert_eq!(pids, [1, 2, 3]);
    }

    #[test]
    fn others_are_anyone_but_the_server() {
        assert!(!policy(&[], &[]).admits_others());
        assert!(!policy(&["uid:self,exe:/a"], &[]).admits_others());
        assert!(policy(&["uid:0"], &[]).admits_others());
        assert!(policy(&["exe:/a"], &[]).admits_others());
    }

    #[test]
    fn ptrace_is_needed_for_executables_of_others_only() {
        assert!(!policy(&["uid:self,exe:/a"], &[]).needs_ptrace_capability());
        assert!(policy(&["uid:2,exe:/a"], &[]).needs_ptrace_capability());
        assert!(policy(&["exe:/a"], &[]).needs_ptrace_capability());
        assert!(policy(&["uid:2"], &["exe:/a"]).needs_ptrace_capability());
        assert!(!policy(&["uid:2,args:x"], &[]).needs_ptrace_capability());
        let names = Numeric {
            own_user: Uid::ROOT,
        };
        let rule = Rule::parse("uid:self,exe:/a", &names).unwrap();
        assert!(Policy::new(vec![rule], vec![], Uid::ROOT).needs_ptrace_capability());
    }

    #[test]
    fn penalties_know_whose_processes_are_told_apart() {
        let policy = policy(&["uid:2,exe:/a", "uid:3"], &[]);
        let apart = |uid| policy.tells_processes_apart(Uid::from_raw(uid));
        assert!(apart(2));
        assert!(!apart(3));
        assert!(!policy.tells_processes_apart(None));
    }

    #[test]
    fn warnings_name_the_rule() {
        let policy = policy(&["uid:1", "any", "name:a,any"], &["args:x,uid:1"]);
        let texts: Vec<_> = policy.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3);
        assert!(
            texts[0].starts_with("allow rule 2 admits everyone"),
            "{texts:?}"
        );
        assert!(
            texts[1].starts_with("allow rule 3 (name:a,any) is forgeable"),
            "{texts:?}"
        );
        assert!(
            texts[2].starts_with("deny rule 1 (args:x,uid:1) is forgeable"),
            "{texts:?}"
        );
    }

    #[test]
    fn interpreters_are_known_with_and_without_version() {
        for path in [
            "/bin/sh",
            "/usr/bin/python3.11",
            "/usr/bin/perl",
            "/usr/bin/php8.2",
        ] {
            let warnings = policy(&[&format!("uid:1,exe:{path}")], &[]).warnings();
            assert_eq!(
                warnings,
                [Warning::Interpreter {
                    number: 1,
                    path: path.into()
                }]
            );
        }
        assert_eq!(
            policy(&["exe:/usr/sbin/nginx"], &["exe:/bin/sh"]).warnings(),
            []
        );
    }

    #[test]
    fn only_address_and_any_reach_the_internet() {
        assert!(!policy(&[], &[]).can_admit_internet());
        assert!(!policy(&["uid:0,address:127.0.0.1"], &[]).can_admit_internet());
        assert!(policy(&["address:127.0.0.0/8"], &[]).can_admit_internet());
        assert!(policy(&["any"], &[]).can_admit_internet());
    }

    #[test]
    fn an_interpreter_s_path_steers_no_terminal() {
        let warning = Warning::Interpreter {
            number: 1,
            path: "/a\u{1b}[2J/python3".into(),
        };
        assert!(
            warning.to_string().contains("(/a\\x1b[2J/python3)"),
            "{warning}"
        );
    }
}
