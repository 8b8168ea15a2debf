//! Puts the walls up in the one order that works.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::thread::CapabilitySet;

use super::attest::{Entered, Expected, OwnStatus, thread_count};
use super::error::system;
use super::landlock::{self, Domains, Offer};
use super::sealed::{Scope, Walls};
use super::startup::forbid_dumps;
use super::{
    Access, Mode, PathGrant, Plan, PrivilegedThread, Report, Role, SandboxError, Sealed,
    SeccompAction, Standing, privileges, seccomp,
};

/// Gives up everything that the plan doesn't keep, for this thread and all that
/// it will start, and starts the threads that keep more.
///
/// # Errors
/// See [`SandboxError`]. The process is then partly sealed, and good for nothing
/// but to say so and end.
pub fn enter(mut plan: Plan) -> Result<Sealed, SandboxError> {
    let found = thread_count()?;
    if found != 1 {
        return Err(SandboxError::Threads { found });
    }
    // Remembered for the server, which can't read it any more.
    let _ = crate::sys::process::max_map_count();
    let mut walls = Walls {
        scope: Scope::Process,
        ..Walls::default()
    };
    // Attestation goes on behind the walls.
    plan.paths.push(PathGrant {
        path: "/proc/self".into(),
        access: Access::Read,
        roles: vec![],
    });
    let needed = plan.max_descriptors;
    if needed > 0
        && let Some(hard) = privileges::limit_descriptors(needed)?
    {
        let detail = format!(
            "{hard} of {needed} that max_connections may need; raise LimitNOFILE= or ulimit -Hn"
        );
        walls.report.add("descriptors", Standing::Degraded, detail);
    }
    // Paths are opened with the rights that the process was started with.
    let offer = landlock_offer(&plan)?;
    prepare_landlock(&plan, offer, &mut walls)?;
    prepare_seccomp(&plan, &mut walls)?;
    shed_privileges(&plan, &mut walls)?;
    let gates = start_privileged(std::mem::take(&mut plan.privileged), &mut walls)?;
    if walls.expected.no_capabilities {
        privileges::set_all(CapabilitySet::empty())?;
    }
    if let Some(run_as) = &plan.run_as {
        privileges::verify_no_way_back(run_as)?;
    }
    if let Some(domains) = &walls.domains {
        domains.enter(Role::Supervisor)?;
        landlock::verify_stands(&plan)?;
    }
    if let Some(action) = walls.filters {
        // Whoever started it may have put filters up as well.
        let had = OwnStatus::open()?.before.seccomp_filters;
        seccomp::install_base(action)?;
        walls.expected.filtered = true;
        walls.expected.filters = had + seccomp::FILTERS_OF_ALL;
    }
    let sealed = Sealed::new(walls);
    sealed.attest()?;
    open(gates);
    Ok(sealed)
}

/// As [`enter`], for a program that has threads already: the calling thread and the
/// others stay as they are, and each thread that the server starts puts its own walls
/// up before it accepts anybody: no capability, no way to gain one, Landlock, and the
/// filter of its role alone.
///
/// What that can't do: memory is shared, so code that an attacker runs in a server's
/// thread may use the others. It contains mistakes: a path that was not checked, a
/// call that was not meant. [`Plan::run_as`] and [`Plan::max_descriptors`] are the
/// whole process's, as are core dumps and ptrace(2), and stay as they are.
/// [`SeccompAction::Kill`] ends the whole program, and [`SeccompAction::Trap`] takes
/// its handler of SIGSYS.
///
/// # Errors
/// See [`SandboxError`]. Nothing has changed then, except that privileged threads of
/// the plan may have come and gone.
pub fn enter_threads(mut plan: Plan) -> Result<Sealed, SandboxError> {
    let whole = |what| Err(SandboxError::WholeProcess { what });
    if plan.run_as.is_some() {
        return whole("run_as");
    }
    if plan.max_descriptors != 0 {
        return whole("max_descriptors");
    }
    let mut walls = Walls {
        scope: Scope::Threads,
        ..Walls::default()
    };
    let scope = "the server's threads only, which share their memory with the others";
    walls.report.add("scope", Standing::Degraded, scope);
    let offer = landlock_offer(&plan)?;
    prepare_landlock(&plan, offer, &mut walls)?;
    prepare_seccomp(&plan, &mut walls)?;
    report_identity(&plan, &mut walls.report);
    let confined = plan.mode != Mode::Off;
    walls.expected.no_capabilities = confined;
    walls.expected.no_new_privs = confined;
    walls.expected.filtered = walls.filters.is_some();
    let had = rustix::thread::capabilities(None)
        .map_err(|errno| system("can't read the capabilities", errno.into()))?;
    let missing = wanted(&plan.privileged) - had.permitted;
    if confined {
        report_capabilities(&plan, missing, &mut walls.report)?;
    } else {
        walls
            .report
            .add("capabilities", Standing::Off, "sandbox=off");
    }
    report_no_new_privs(plan.mode, &mut walls.report);
    let gates = start_privileged(std::mem::take(&mut plan.privileged), &mut walls)?;
    open(gates);
    Ok(Sealed::new(walls))
}

/// What a thread gives up that was born among others that have it.
pub(super) fn shed_of_thread(expected: &Expected) -> Result<(), SandboxError> {
    if expected.no_capabilities {
        privileges::shed(None, CapabilitySet::empty())?;
    }
    if expected.no_new_privs {
        rustix::thread::set_no_new_privs(true)
            .map_err(|errno| system("can't set no_new_privs", errno.into()))?;
    }
    Ok(())
}

fn open(gates: Vec<Sender<()>>) {
    for gate in gates {
        // A thread that is gone has said why on its way, or will be missed.
        let _ = gate.send(());
    }
}

/// What [`enter`] would report, found out without changing or opening anything.
pub fn preview(plan: &Plan) -> Report {
    let mut report = Report::default();
    report_landlock(plan.mode, &landlock::offer(), &[], &mut report);
    report_seccomp(plan, &mut report);
    report_identity(plan, &mut report);
    if plan.mode == Mode::Off && plan.run_as.is_none() {
        report.add("capabilities", Standing::Off, "sandbox=off");
    } else {
        report.add(
            "capabilities",
            Standing::Enforced,
            capability_detail(&plan.privileged),
        );
    }
    report_no_new_privs(plan.mode, &mut report);
    report
}

/// What the kernel has to offer; refused here if it is not enough.
fn landlock_offer(plan: &Plan) -> Result<Offer, SandboxError> {
    let offer = landlock::offer();
    match &offer {
        Offer::Part(_, missing) | Offer::None(missing) if plan.mode == Mode::Enforce => {
            Err(SandboxError::Wall {
                wall: "landlock",
                missing: missing.clone(),
            })
        }
        _ => Ok(offer),
    }
}

fn prepare_landlock(plan: &Plan, offer: Offer, walls: &mut Walls) -> Result<(), SandboxError> {
    let mut left_out = Vec::new();
    if plan.mode != Mode::Off
        && let Offer::Whole(version) | Offer::Part(version, _) = offer
    {
        let (domains, not_granted) = Domains::prepare(plan, version)?;
        walls.domains = Some(Arc::new(domains));
        left_out = not_granted;
    }
    report_landlock(plan.mode, &offer, &left_out, &mut walls.report);
    Ok(())
}

fn prepare_seccomp(plan: &Plan, walls: &mut Walls) -> Result<(), SandboxError> {
    let missing = report_seccomp(plan, &mut walls.report);
    match missing {
        Some(missing) if plan.mode == Mode::Enforce => {
            return Err(SandboxError::Wall {
                wall: "seccomp",
                missing: missing.to_owned(),
            });
        }
        Some(_) => {}
        None if plan.mode == Mode::Off || plan.seccomp == SeccompAction::Off => {}
        None => {
            seccomp::prepare(plan.seccomp)?;
            walls.filters = Some(plan.seccomp);
        }
    }
    Ok(())
}

fn report_landlock(mode: Mode, offer: &Offer, left_out: &[String], report: &mut Report) {
    let (standing, mut detail) = match (mode, offer) {
        (Mode::Off, _) => (Standing::Off, "sandbox=off".to_owned()),
        (_, Offer::Whole(version)) => (Standing::Enforced, format!("ABI {version}")),
        (_, Offer::Part(_, lacks)) => (Standing::Degraded, lacks.clone()),
        (_, Offer::None(why)) => (Standing::Off, why.clone()),
    };
    for path in left_out {
        detail.push_str(", ");
        detail.push_str(path);
    }
    report.add("landlock", standing, detail);
}

/// Also says what is missing, if anything is.
fn report_seccomp(plan: &Plan, report: &mut Report) -> Option<&'static str> {
    let (standing, detail) = match (plan.mode, plan.seccomp) {
        (Mode::Off, _) => (Standing::Off, "sandbox=off"),
        (_, SeccompAction::Off) => (Standing::Off, "seccomp=off"),
        (_, action) => match (seccomp::missing(action), action) {
            (Some(missing), _) => {
                report.add("seccomp", Standing::Off, missing);
                return Some(missing);
            }
            (None, SeccompAction::Log) => (Standing::Degraded, "seccomp=log only logs"),
            (None, SeccompAction::Trap) => (Standing::Enforced, "trap"),
            (None, _) => (Standing::Enforced, "kill"),
        },
    };
    report.add("seccomp", standing, detail);
    None
}

/// Says which capabilities are left; refuses where one is missing that must be there.
fn report_capabilities(
    plan: &Plan,
    missing: CapabilitySet,
    report: &mut Report,
) -> Result<(), SandboxError> {
    if missing.is_empty() {
        let detail = capability_detail(&plan.privileged);
        report.add("capabilities", Standing::Enforced, detail);
        return Ok(());
    }
    let missing = format!(
        "the process was started without {}",
        names(&plan.privileged, missing).join(", ")
    );
    if plan.mode == Mode::Enforce {
        return Err(SandboxError::Wall {
            wall: "capabilities",
            missing,
        });
    }
    report.add("capabilities", Standing::Degraded, missing);
    Ok(())
}

fn report_no_new_privs(mode: Mode, report: &mut Report) {
    match mode {
        Mode::Off => report.add("no_new_privs", Standing::Off, "sandbox=off"),
        _ => report.add("no_new_privs", Standing::Enforced, ""),
    }
}

fn shed_privileges(plan: &Plan, walls: &mut Walls) -> Result<(), SandboxError> {
    report_identity(plan, &mut walls.report);
    if let Some(run_as) = &plan.run_as {
        walls.expected.identity = Some((
            run_as.uid.as_raw(),
            run_as.gid.as_raw(),
            privileges::sorted_groups(run_as),
        ));
    }
    if plan.mode == Mode::Off && plan.run_as.is_none() {
        walls
            .report
            .add("capabilities", Standing::Off, "sandbox=off");
        report_no_new_privs(plan.mode, &mut walls.report);
        return Ok(());
    }
    let wanted = wanted(&plan.privileged);
    let kept = privileges::shed(plan.run_as.as_ref(), wanted)?;
    walls.expected.no_capabilities = true;
    walls.expected.no_bounding = kept.bounding_empty;
    report_capabilities(plan, kept.missing, &mut walls.report)?;
    // A change of identity makes the process dumpable again where
    // /proc/sys/fs/suid_dumpable says so (prctl(2)).
    forbid_dumps()?;
    report_no_new_privs(plan.mode, &mut walls.report);
    if plan.mode == Mode::Off {
        return Ok(());
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| system("can't set no_new_privs", errno.into()))?;
    walls.expected.no_new_privs = true;
    Ok(())
}

/// Starts each privileged thread, lets it put its own walls up, and leaves it
/// waiting at a gate until the main thread is sealed as well.
fn start_privileged(
    threads: Vec<PrivilegedThread>,
    walls: &mut Walls,
) -> Result<Vec<Sender<()>>, SandboxError> {
    let mut gates = Vec::new();
    for thread in threads {
        let name = thread.name;
        let kept = wanted(std::slice::from_ref(&thread));
        let own = OwnWalls {
            kept,
            domains: walls.domains.clone().filter(|_| !thread.outside_landlock),
            role: thread.role,
            filters: walls.filters,
            sheds: matches!(walls.scope, Scope::Threads) && walls.expected.no_capabilities,
        };
        let (ready, is_ready) = channel();
        let (gate, opened) = channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run_privileged(thread, &own, &ready, &opened))
            .map_err(|error| SandboxError::PrivilegedThread {
                name,
                reason: error.to_string(),
            })?;
        let entered = is_ready
            .recv()
            .map_err(|_| SandboxError::PrivilegedThread {
                name,
                reason: "it panicked".into(),
            })?
            .map_err(|error: SandboxError| SandboxError::PrivilegedThread {
                name,
                reason: error.to_string(),
            })?;
        walls.expected.exceptions.push((entered, kept.bits()));
        gates.push(gate);
    }
    Ok(gates)
}

/// What a privileged thread puts up for itself.
struct OwnWalls {
    kept: CapabilitySet,
    domains: Option<Arc<Domains>>,
    role: Role,
    filters: Option<SeccompAction>,
    /// Whether it is born among threads that keep everything.
    sheds: bool,
}

impl OwnWalls {
    fn put_up(&self) -> Result<Entered, SandboxError> {
        if self.sheds {
            privileges::shed(None, self.kept)?;
            rustix::thread::set_no_new_privs(true)
                .map_err(|errno| system("can't set no_new_privs", errno.into()))?;
        }
        let have = rustix::thread::capabilities(None)
            .map_err(|errno| system("can't read the capabilities", errno.into()))?;
        privileges::set_all(have.permitted & self.kept)?;
        let had = OwnStatus::open()?.before;
        let mut entered = Entered {
            tid: had.tid,
            role: self.role,
            filters: had.seccomp_filters,
        };
        if let Some(domains) = &self.domains {
            domains.enter(self.role)?;
        }
        if let Some(action) = self.filters {
            seccomp::install_role(self.role, action)?;
            entered.filters += seccomp::filters_of(self.role);
        }
        Ok(entered)
    }
}

fn run_privileged(
    thread: PrivilegedThread,
    own: &OwnWalls,
    ready: &Sender<Result<Entered, SandboxError>>,
    gate: &Receiver<()>,
) {
    let result = own.put_up();
    let failed = result.is_err();
    // The main thread waits for this; without it, there is nothing to serve.
    if ready.send(result).is_err() || failed || gate.recv().is_err() {
        return;
    }
    (thread.body)();
}

fn wanted(threads: &[PrivilegedThread]) -> CapabilitySet {
    threads
        .iter()
        .flat_map(|thread| &thread.capabilities)
        .fold(CapabilitySet::empty(), |set, capability| {
            set | capability.as_set()
        })
}

/// The names of those in `set`, each once.
fn names(threads: &[PrivilegedThread], set: CapabilitySet) -> Vec<String> {
    let mut names: Vec<String> = threads
        .iter()
        .flat_map(|thread| &thread.capabilities)
        .filter(|capability| set.contains(capability.as_set()))
        .map(ToString::to_string)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn capability_detail(threads: &[PrivilegedThread]) -> String {
    let kept: Vec<String> = threads
        .iter()
        .filter(|thread| !thread.capabilities.is_empty())
        .map(|thread| {
            let all = names(std::slice::from_ref(thread), CapabilitySet::all());
            format!("{} in thread {}", all.join("+"), thread.name)
        })
        .collect();
    if kept.is_empty() {
        "none left".to_owned()
    } else {
        format!("only {}", kept.join(", "))
    }
}

fn report_identity(plan: &Plan, report: &mut Report) {
    match &plan.run_as {
        Some(run_as) => report.add(
            "identity",
            Standing::Enforced,
            format!("uid {}, gid {}", run_as.uid, run_as.gid),
        ),
        None => report.add("identity", Standing::Enforced, "as started"),
    }
}
