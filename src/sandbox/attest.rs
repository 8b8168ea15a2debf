//! Reads from `/proc/self/task/*/status` how each thread stands
//! (proc_pid_status(5)), and compares it with what was promised.

use std::fs;
use std::io;
use std::path::Path;

use super::error::system;
use super::{Role, SandboxError};

/// Where the kernel lists the threads of this process.
const TASKS: &str = "/proc/self/task";
/// The calling thread's. Not by its id, which may be another in the PID namespace that
/// /proc was mounted for (proc(5)).
#[cfg(feature = "sandbox")]
const OWN_STATUS: &str = "/proc/thread-self/status";

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
    /// The role that it has entered. It alone is our own word, not the kernel's.
    pub role: Option<Role>,
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
    /// Whether each thread must live behind filters.
    pub(super) filtered: bool,
    /// How many at least, whatever it does.
    pub(super) filters: u32,
    /// Threads that stand alone, and all capabilities that they may have.
    pub(super) exceptions: Vec<(Entered, u64)>,
}

/// A thread that has entered a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entered {
    pub(super) tid: i32,
    pub(super) role: Role,
    /// How many filters it lives behind at least: those it was born behind, and the role's.
    pub(super) filters: u32,
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

    /// Holds each thread against what is expected of it, by the role that it entered.
    pub(super) fn verify(
        &mut self,
        expected: &Expected,
        entered: &[Entered],
    ) -> Result<(), SandboxError> {
        for thread in &mut self.threads {
            thread.verify(expected, entered)?;
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
            role: None,
        })
    }

    /// Takes down its role, and says what is not as expected.
    fn verify(&mut self, expected: &Expected, entered: &[Entered]) -> Result<(), SandboxError> {
        let alone = expected.exceptions.iter().map(|(thread, _)| thread);
        let entered = entered.iter().chain(alone).find(|one| one.tid == self.tid);
        self.role = entered.map(|one| one.role);
        let filters = entered.map_or(expected.filters, |one| one.filters);
        match self.flaw(expected, filters) {
            None => Ok(()),
            Some(what) => Err(SandboxError::Exposed {
                thread: self.name.clone(),
                tid: self.tid,
                what,
            }),
        }
    }

    /// What of this thread is not as expected.
    fn flaw(&self, expected: &Expected, filters: u32) -> Option<String> {
        let kept = expected
            .exceptions
            .iter()
            .find(|(thread, _)| thread.tid == self.tid)
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
        if expected.filtered && self.seccomp != 2 {
            return Some(format!("seccomp mode {}, expected 2", self.seccomp));
        }
        if self.seccomp_filters != 0 && self.seccomp_filters < filters {
            return Some(format!(
                "{} seccomp filters, expected {filters} or more",
                self.seccomp_filters
            ));
        }
        None
    }
}

/// The calling thread's status: opened before its walls let it open nothing more, read
/// behind them.
#[cfg(feature = "sandbox")]
pub(super) struct OwnStatus {
    file: fs::File,
    /// How it stands now.
    pub(super) before: ThreadState,
}

#[cfg(feature = "sandbox")]
impl OwnStatus {
    pub(super) fn open() -> Result<Self, SandboxError> {
        let file = fs::File::open(OWN_STATUS).map_err(unreadable)?;
        let text = read_at(&file).map_err(|errno| unreadable(errno.into()))?;
        let before = ThreadState::parse(&text).ok_or_else(malformed)?;
        Ok(Self { file, before })
    }

    /// Asks the kernel whether the thread stands now where it has entered.
    pub(super) fn verify(self, expected: &Expected, entered: Entered) -> Result<(), SandboxError> {
        // By the call that the role has for its own work. The first look left the file's
        // position at its start.
        let text = match entered.role {
            Role::LogWriter | Role::Metrics => read_at(&self.file),
            _ => read_by(|part, _| rustix::io::read(&self.file, part)),
        };
        let text = text.map_err(|errno| unreadable(errno.into()))?;
        let state = ThreadState::parse(&text);
        state.ok_or_else(malformed)?.verify(expected, &[entered])
    }
}

#[cfg(feature = "sandbox")]
fn read_at(file: &fs::File) -> rustix::io::Result<String> {
    read_by(|part, at| rustix::io::pread(file, part, at))
}

/// All of a text, by a call that is given a buffer and how much there is already.
#[cfg(feature = "sandbox")]
fn read_by(
    mut read: impl FnMut(&mut [u8], u64) -> rustix::io::Result<usize>,
) -> rustix::io::Result<String> {
    let (mut text, mut part) = (Vec::new(), [0_u8; 4096]);
    loop {
        let at = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let length = read(&mut part, at)?;
        match part.get(..length) {
            Some([]) | None => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Some(more) => text.extend_from_slice(more),
        }
    }
}

/// One thread's state. `None` if it has ended.
fn read_thread(task: &Path) -> Result<Option<ThreadState>, SandboxError> {
    match fs::read_to_string(task.join("status")) {
        Ok(text) => ThreadState::parse(&text).map(Some).ok_or_else(malformed),
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

fn malformed() -> SandboxError {
    unreadable(io::Error::new(
        io::ErrorKind::InvalidData,
        "a field is missing",
    ))
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
            filtered: true,
            filters: 2,
            exceptions: vec![(entered(72, Role::Connector, 2), 0xc0)],
        }
    }

    fn entered(tid: i32, role: Role, filters: u32) -> Entered {
        Entered { tid, role, filters }
    }

    /// The flaw of a thread that was found so, if it has entered what is said.
    fn flaw_of(text: &str, expected: &Expected, entered: &[Entered]) -> Option<String> {
        let mut state = ThreadState::parse(text).unwrap();
        let error = state.verify(expected, entered).err()?;
        Some(error.to_string())
    }

    #[track_caller]
    fn check(from: &str, to: &str, flaw: Option<&str>) {
        let found = flaw_of(&STATUS.replace(from, to), &expected(), &[]);
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
        let kept = kept.replace("Pid:\t71", "Pid:\t72");
        assert_eq!(flaw_of(&kept, &expected(), &[]), None);
        let more = kept.replace("CapPrm:\t0000000000000040", "CapPrm:\t0000000000000100");
        assert!(flaw_of(&more, &expected(), &[]).is_some());
    }

    #[test]
    fn a_thread_must_live_behind_the_filters_of_the_role_that_it_entered() {
        let worker = |filters| [entered(71, Role::EchoWorker, filters)];
        assert_eq!(flaw_of(STATUS, &expected(), &worker(3)), None);
        let found = flaw_of(STATUS, &expected(), &worker(4)).unwrap();
        assert!(found.contains("3 seccomp filters, expected 4"), "{found}");
        let other = [entered(70, Role::EchoWorker, 4)];
        assert_eq!(flaw_of(STATUS, &expected(), &other), None);
        let alone = STATUS.replace("Pid:\t71", "Pid:\t72");
        let lacking = alone.replace("filters:\t3", "filters:\t1");
        assert_eq!(flaw_of(&alone, &expected(), &[]), None);
        assert!(flaw_of(&lacking, &expected(), &[]).is_some());
    }

    #[test]
    fn the_role_of_a_thread_is_taken_down() {
        let mut state = ThreadState::parse(STATUS).unwrap();
        assert_eq!(state.role, None);
        let one = [entered(71, Role::Metrics, 3)];
        state.verify(&expected(), &one).unwrap();
        assert_eq!(state.role, Some(Role::Metrics));
    }

    #[test]
    fn an_exception_that_keeps_nothing_is_who_all_are() {
        let alone = STATUS
            .replace("Pid:\t71", "Pid:\t73")
            .replace("filters:\t3", "filters:\t1");
        let expected = Expected {
            exceptions: vec![(entered(73, Role::Resolver, 1), 0)],
            ..expected()
        };
        assert_eq!(flaw_of(&alone, &expected, &[]), None);
        let other = alone.replace("Uid:\t33", "Uid:\t0");
        assert!(flaw_of(&other, &expected, &[]).is_some());
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
