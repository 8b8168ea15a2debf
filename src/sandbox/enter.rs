//! Puts the walls up in the one order that works.

use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::thread::CapabilitySet;

use super::attest::thread_count;
use super::error::system;
use super::sealed::Walls;
use super::startup::forbid_dumps;
use super::{Mode, Plan, PrivilegedThread, Report, SandboxError, Sealed, Standing, privileges};

/// Gives up everything that the plan doesn't keep, for this thread and all that
/// it will start, and starts the threads that keep more.
///
/// # Errors
/// See [`SandboxError`]. The process is then partly sealed, and good for nothing
/// but to say so and end.
pub fn enter(plan: Plan) -> Result<Sealed, SandboxError> {
    let found = thread_count()?;
    if found != 1 {
        return Err(SandboxError::Threads { found });
    }
    let mut walls = Walls::default();
    if plan.max_descriptors > 0 {
        privileges::limit_descriptors(plan.max_descriptors)?;
    }
    shed_privileges(&plan, &mut walls)?;
    let gates = start_privileged(plan.privileged, &mut walls)?;
    if walls.expected.no_capabilities {
        privileges::set_all(CapabilitySet::empty())?;
    }
    if let Some(run_as) = &plan.run_as {
        privileges::verify_no_way_back(run_as)?;
    }
    let sealed = Sealed::new(walls);
    sealed.attest()?;
    for gate in gates {
        // A thread that is gone has said why on its way, or will be missed.
        let _ = gate.send(());
    }
    Ok(sealed)
}

/// What [`enter`] would report, found out without changing or opening anything.
pub fn preview(plan: &Plan) -> Report {
    let mut report = Report::default();
    report_identity(plan, &mut report);
    report
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
        walls
            .report
            .add("no_new_privs", Standing::Off, "sandbox=off");
        return Ok(());
    }
    let wanted = wanted(&plan.privileged);
    let kept = privileges::shed(plan.run_as.as_ref(), wanted)?;
    walls.expected.no_capabilities = true;
    walls.expected.no_bounding = kept.bounding_empty;
    if !kept.missing.is_empty() {
        let missing = format!(
            "the process was started without {}",
            names(&plan.privileged, kept.missing).join(", ")
        );
        if plan.mode == Mode::Enforce {
            return Err(SandboxError::Wall {
                wall: "capabilities",
                missing,
            });
        }
        walls
            .report
            .add("capabilities", Standing::Degraded, missing);
    } else {
        walls.report.add(
            "capabilities",
            Standing::Enforced,
            capability_detail(&plan.privileged),
        );
    }
    // A change of identity makes the process dumpable again where
    // /proc/sys/fs/suid_dumpable says so (prctl(2)).
    forbid_dumps()?;
    if plan.mode == Mode::Off {
        walls
            .report
            .add("no_new_privs", Standing::Off, "sandbox=off");
        return Ok(());
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| system("can't set no_new_privs", errno.into()))?;
    walls.expected.no_new_privs = true;
    walls.report.add("no_new_privs", Standing::Enforced, "");
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
        let (ready, is_ready) = channel();
        let (gate, opened) = channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run_privileged(thread, kept, &ready, &opened))
            .map_err(|error| SandboxError::PrivilegedThread {
                name,
                reason: error.to_string(),
            })?;
        let tid = is_ready
            .recv()
            .map_err(|_| SandboxError::PrivilegedThread {
                name,
                reason: "it panicked".into(),
            })?
            .map_err(|error: SandboxError| SandboxError::PrivilegedThread {
                name,
                reason: error.to_string(),
            })?;
        walls.expected.exceptions.push((tid, kept.bits()));
        gates.push(gate);
    }
    Ok(gates)
}

fn run_privileged(
    thread: PrivilegedThread,
    kept: CapabilitySet,
    ready: &Sender<Result<i32, SandboxError>>,
    gate: &Receiver<()>,
) {
    let have = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |c| c.permitted);
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    let sealed = privileges::set_all(have & kept);
    let failed = sealed.is_err();
    // The main thread waits for this; without it, there is nothing to serve.
    if ready.send(sealed.map(|()| tid)).is_err() || failed || gate.recv().is_err() {
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
