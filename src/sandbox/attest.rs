//! Reads from `/proc/self/task/*/status` how each thread stands
//! (proc_pid_status(5)), and compares it with what was promised.

use std::fs;
use std::io;
use std::path::Path;

use super::SandboxError;
use super::error::system;

/// Where the kernel lists the threads of this process.
const TASKS: &str = "/proc/self/task";

/// What the kernel says of one thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ThreadState {
    /// Thread id.
    pub tid: i32,
    /// Its name, as the kernel shows it.
    pub name: String,
    /// Real, effective, saved and file system user.
    pub uids: [u32; 4],
    /// Real, effective, saved and file system group.
    pub gids: [u32; 4],
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient capabilities.
    pub capabilities: [u64; 5],
    /// Whether execve(2) can no longer add privileges.
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filtered (seccomp(2)).
    pub seccomp: u32,
    /// How many filters it lives behind; 0 where the kernel doesn't say (before 5.9).
    pub seccomp_filters: u32,
}

/// How every thread of the process stands, at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attestation {
    /// One entry for each thread.
    pub threads: Vec<ThreadState>,
}

/// What each thread must show.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    /// uid, gid and sorted groups, where they were changed.
    pub(super) identity: Option<(u32, u32, Vec<u32>)>,
    /// Whether capabilities must be gone.
    pub(super) no_capabilities: bool,
    /// Whether the bounding set must be empty as well.
    pub(super) no_bounding: bool,
    pub(super) no_new_privs: bool,
    /// How many filters each thread lives behind at least; 0 if none is asked for.
    pub(super) filters: u32,
    /// Threads that stand alone: tid, and all capabilities that they may have.
    pub(super) exceptions: Vec<(i32, u64)>,
}

impl Attestation {
    /// Reads the status of every thread that exists now.
    pub(super) fn read() -> Result<Self, SandboxError> {
        let mut threads = Vec::new();
        for entry in tasks()? {
            let entry = entry.map_err(unreadable)?;
            threads.extend(read_thread(&entry.path())?);
        }
        Ok(Self { threads })
    }

    /// The same of these threads only. Those that have ended meanwhile are left out.
    #[cfg(feature = "sandbox")]
    pub(super) fn read_of(tids: &[i32]) -> Result<Self, SandboxError> {
        let mut threads = Vec::new();
        for tid in tids {
            threads.extend(read_thread(&Path::new(TASKS).join(tid.to_string()))?);
        }
        Ok(Self { threads })
    }

    /// Holds each thread against what is expected of it.
    pub(super) fn verify(&self, expected: &Expected) -> Result<(), SandboxError> {
        for thread in &self.threads {
            if let Some(what) = thread.flaw(expected) {
                return Err(SandboxError::Exposed {
                    thread: thread.name.clone(),
                    tid: thread.tid,
                    what,
                });
            }
        }
        Ok(())
    }
}

impl ThreadState {
    /// Takes the fields from the text of a status file. `None` if one is
    /// missing or malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let set = |name| u64::from_str_radix(field(name)?, 16).ok();
        let mut groups = field("Groups")?
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()
            .ok()?;
        groups.sort_unstable();
        Some(Self {
            tid: field("Pid")?.parse().ok()?,
            name: field("Name")?.to_owned(),
            uids: four(field("Uid")?)?,
            gids: four(field("Gid")?)?,
            groups,
            capabilities: [
                set("CapInh")?,
                set("CapPrm")?,
                set("CapEff")?,
                set("CapBnd")?,
                set("CapAmb")?,
            ],
            no_new_privs: field("NoNewPrivs")? == "1",
            // Absent where the kernel was built without CONFIG_SECCOMP.
            seccomp: field("Seccomp").map_or(Some(0), |text| text.parse().ok())?,
            seccomp_filters: field("Seccomp_filters").map_or(Some(0), |text| text.parse().ok())?,
        })
    }

    fn is_excepted(&self, expected: &Expected) -> bool {
        expected.exceptions.iter().any(|(tid, _)| *tid == self.tid)
    }

    /// What of this thread is not as expected.
    fn flaw(&self, expected: &Expected) -> Option<String> {
        let kept = expected
            .exceptions
            .iter()
            .find(|(tid, _)| *tid == self.tid)
            .map_or(0, |&(_, kept)| kept);
        // A thread that connects as others is someone else now and then.
        if let Some((uid, gid, groups)) = &expected.identity
            && kept == 0
        {
            if self.uids != [*uid; 4] {
                return Some(format!("uids {:?}, expected {uid}", self.uids));
            }
            if self.gids != [*gid; 4] {
                return Some(format!("gids {:?}, expected {gid}", self.gids));
            }
            if self.groups != *groups {
                return Some(format!("groups {:?}, expected {groups:?}", self.groups));
            }
        }
        if expected.no_capabilities {
            let [inheritable, permitted, effective, bounding, ambient] = self.capabilities;
            let bounding = if expected.no_bounding { bounding } else { 0 };
            let extra = inheritable | ambient | bounding | ((permitted | effective) & !kept);
            if extra != 0 {
                return Some(format!("capabilities {extra:#x} are left"));
            }
        }
        if expected.no_new_privs && !self.no_new_privs {
            return Some("no_new_privs is not set".to_owned());
        }
        if expected.filters > 0 && self.seccomp != 2 {
            return Some(format!("seccomp mode {}, expected 2", self.seccomp));
        }
        // A thread that stands alone has one filter, which is whole.
        let least = if self.is_excepted(expected) {
            1
        } else {
            expected.filters
        };
        if self.seccomp_filters != 0 && self.seccomp_filters < least {
            return Some(format!(
                "{} seccomp filters, expected {least} or more",
                self.seccomp_filters
            ));
        }
        None
    }
}

/// One thread's state. `None` if it has ended.
fn read_thread(task: &Path) -> Result<Option<ThreadState>, SandboxError> {
    match fs::read_to_string(task.join("status")) {
        Ok(text) => ThreadState::parse(&text).map(Some).ok_or_else(|| {
            unreadable(io::Error::new(
                io::ErrorKind::InvalidData,
                "a field is missing",
            ))
        }),
        // It ended between the listing and the read (ESRCH), or before the open (ENOENT).
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// How many threads the process has.
#[cfg(feature = "sandbox")]
pub(super) fn thread_count() -> Result<usize, SandboxError> {
    Ok(tasks()?.count())
}

fn tasks() -> Result<fs::ReadDir, SandboxError> {
    fs::read_dir(TASKS).map_err(unreadable)
}

fn unreadable(source: io::Error) -> SandboxError {
    system(
        "can't read the status of the threads in /proc/self/task",
        source,
    )
}

fn four(text: &str) -> Option<[u32; 4]> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
    Some([
        words.next()??,
        words.next()??,
        words.next()??,
        words.next()??,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tworker\nPid:\t71\nUid:\t33\t33\t33\t33\nGid:\t33\t33\t33\t33\n\
        Groups:\t4 33 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    fn expected() -> Expected {
        Expected {
            identity: Some((33, 33, vec![4, 33])),
            no_capabilities: true,
            no_bounding: true,
            no_new_privs: true,
            filters: 2,
            exceptions: vec![(72, 0xc0)],
        }
    }

    #[track_caller]
    fn check(from: &str, to: &str, flaw: Option<&str>) {
        let state = ThreadState::parse(&STATUS.replace(from, to)).unwrap();
        let found = state.flaw(&expected());
        assert_eq!(found.is_some(), flaw.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().contains(flaw.unwrap_or("")));
    }

    #[test]
    fn a_thread_behind_all_walls_passes() {
        check("", "", None);
    }

    #[test]
    fn every_wall_is_looked_at() {
        check("Uid:\t33\t33\t33", "Uid:\t33\t33\t0", Some("uids"));
        check("Gid:\t33", "Gid:\t0", Some("gids"));
        check("Groups:\t4 33 ", "Groups:\t0 4 33 ", Some("groups"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let from = format!("{set}:\t0000000000000000");
            check(&from, &format!("{set}:\t0000000000000080"), Some("0x80"));
        }
        check("NoNewPrivs:\t1", "NoNewPrivs:\t0", Some("no_new_privs"));
        check("Seccomp:\t2", "Seccomp:\t0", Some("seccomp"));
        check("Seccomp:\t2\n", "", Some("seccomp"));
        check(
            "Seccomp_filters:\t3",
            "Seccomp_filters:\t1",
            Some("expected 2"),
        );
    }

    #[test]
    fn an_exception_is_for_one_thread_and_what_it_was_named_for() {
        let kept = STATUS.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000040");
        let kept = ThreadState::parse(&kept.replace("Pid:\t71", "Pid:\t72")).unwrap();
        assert_eq!(kept.flaw(&expected()), None);
        let more = ThreadState {
            capabilities: [0, 0x100, 0, 0, 0],
            ..kept
        };
        assert!(more.flaw(&expected()).is_some());
    }

    #[test]
    fn an_exception_that_keeps_nothing_is_who_all_are() {
        let alone = STATUS
            .replace("Pid:\t71", "Pid:\t73")
            .replace("filters:\t3", "filters:\t1");
        let expected = Expected {
            exceptions: vec![(73, 0)],
            ..expected()
        };
        assert_eq!(ThreadState::parse(&alone).unwrap().flaw(&expected), None);
        let other = ThreadState::parse(&alone.replace("Uid:\t33", "Uid:\t0")).unwrap();
        assert!(other.flaw(&expected).is_some());
    }

    #[test]
    fn a_missing_field_is_an_error() {
        assert_eq!(
            ThreadState::parse(&STATUS.replace("NoNewPrivs", "Other")),
            None
        );
        assert_eq!(ThreadState::parse(""), None);
    }

    #[test]
    fn own_threads_are_read() {
        let own = Attestation::read().unwrap();
        assert!(!own.threads.is_empty());
    }
}
