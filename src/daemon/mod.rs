//! The daemon: from its arguments to its exit code, on one page.
//!
//! The order is what the program promises: everything is parsed before anything is
//! opened; the socket is bound and the logs are open before the walls rise; no
//! thread exists before they stand; nobody is accepted before they were attested.
//!
//! Not here: how each room does its part.

mod accounts;
mod fault;
mod links;
mod overseer;
mod records;
mod relay;
mod rooms;
mod signals;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::{self, Command, OwnProcess, Settings, Surroundings, SystemAccounts};
use crate::listener::Listener;
use crate::listener::{handed_over, only, take_named};
use crate::logging::Logger;
use crate::server::{Outcome, Server};
use crate::{exit, sandbox};
use accounts::Remembering;
use fault::Fault;
use overseer::{Means, Warden};
use signals::Signals;

/// Runs the daemon with the arguments of the process, to its end.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Err(error) = sandbox::early_hardening() {
        return Fault::new(exit::SYSTEM, "can't harden the process", &error).report();
    }
    let Some(own) = OwnProcess::look() else {
        return Fault::plain(exit::SYSTEM, "this process has no user").report();
    };
    let accounts = Remembering::new(SystemAccounts);
    let surroundings = Surroundings {
        accounts: &accounts,
        ..own.surroundings()
    };
    let done = match config::parse(args.iter().cloned(), &surroundings) {
        Ok(Command::Serve(settings)) => serve(
            &settings,
            Origin {
                args,
                surroundings,
                accounts: &accounts,
            },
        ),
        Ok(Command::Check(settings)) => check(&settings),
        Ok(Command::Explain(settings, facts)) => print(&settings.peers.policy.explain(&facts)),
        Ok(Command::Help(None)) => print(&config::help::overview()),
        Ok(Command::Help(Some(key))) => print(&config::help::option(key)),
        Ok(Command::Version) => print(&format!("secure_socket {}\n", env!("CARGO_PKG_VERSION"))),
        Err(diagnostics) => {
            eprint!("{diagnostics}");
            return ExitCode::from(diagnostics.exit_code());
        }
    };
    done.map_or_else(|fault| fault.report(), ExitCode::from)
}

/// What the configuration was made from, for a reload.
pub(crate) struct Origin<'a> {
    args: Vec<OsString>,
    surroundings: Surroundings<'a>,
    accounts: &'a Remembering,
}

/// The way of a server, from its settings to its last connection.
fn serve(settings: &Settings, origin: Origin<'_>) -> Result<u8, Fault> {
    let signals = Signals::block().map_err(|e| Fault::new(exit::SYSTEM, "signals", &e))?;
    let system = |error: std::io::Error| Fault::new(exit::SYSTEM, "signals", &error);
    crate::sys::interrupt::prepare().map_err(system)?;
    crate::sys::interrupt::survive_file_size_limit().map_err(system)?;
    let notify = rooms::notify()?;
    let logger = rooms::logger(settings)?;
    // Until the writer has a thread of its own, a fault must not lose lines.
    let served = serve_logged(settings, origin, signals, notify, &logger);
    if served.is_err() {
        logger.drain_blocking();
    }
    served
}

fn serve_logged(
    settings: &Settings,
    origin: Origin<'_>,
    signals: Signals,
    notify: Option<crate::listener::Notify>,
    logger: &Logger,
) -> Result<u8, Fault> {
    rooms::say_remarks(settings);
    let kernel = rooms::probe(settings)?;
    rooms::fit_pool(settings, settings.limits.threads)?;
    let (checker, checker_threads) = rooms::checker(settings)?;
    let rules = rooms::rules(settings, &kernel, checker.clone(), None)?;
    let relay = relay::open(settings)?;
    let broker = rooms::broker(settings)?;
    let protocol = rooms::protocol(settings, relay.as_ref(), broker.as_ref(), &rules);
    let options = rooms::listener_options(settings, &*protocol);
    let mut handed = handed_over().map_err(fault::of_bind)?;
    let records = records::Opened::open(settings, take_named(&mut handed, "metrics"))?;
    if let Some(broker) = &broker {
        records.add_source(Box::new(Arc::clone(broker)));
    }
    let bound = match only(handed).map_err(fault::of_bind)? {
        Some(handed) => Listener::from_systemd(handed, &options),
        None => Listener::bind(&options),
    }
    .map_err(fault::of_bind)?;
    let mut plan = rooms::plan(settings, &bound, logger, &records);
    if let Some(relay) = &relay {
        relay::keep(&mut plan, settings, relay);
    }
    let sealed = sandbox::enter(rooms::with_checkers(plan, settings, checker_threads))
        .map_err(fault::of_sandbox)?;
    origin.accounts.wall_in();
    let listener = bound.seal(&sealed);
    let guard = logger
        .start_writer(rooms::log_hook(&sealed))
        .map_err(fault::of_logging)?;
    for notice in listener.notices() {
        if notice.is_warning() {
            crate::warning!("{notice}");
        } else {
            crate::info!("{notice}");
        }
    }
    crate::info!("sandbox: {}", sealed.report());
    let place = listener.address().to_string();
    let server = Server::with_protocol(listener, protocol, rules)
        .limits(settings.limits.admission.clone())
        .threads(settings.limits.threads)
        .overload(settings.limits.overload)
        .observer(records.observer())
        .build()
        .map_err(fault::of_server)?;
    let (logger, last_look) = (logger.clone(), logger.clone());
    let metrics_rules = records::metrics_rules(settings, &kernel, checker.clone(), None)?;
    let records = records.start(
        settings,
        &sealed,
        &logger,
        &server.handle(),
        &place,
        metrics_rules,
    )?;
    let means = Means {
        origin,
        signals,
        notify,
        broker,
        logger,
        kernel,
        checker,
        records,
        reach: rooms::reach(settings),
        threads: settings.limits.threads,
    };
    let mut warden = Warden::new(settings, means, place);
    let ended = server.run_with(&mut warden);
    let code = match ended {
        Ok(Outcome::Drained) => exit::OK,
        Ok(Outcome::Forced) => exit::FORCED,
        Err(error) => {
            let fault = fault::of_server(error);
            crate::critical!("{fault}");
            let mut ending = warden.close(fault.code());
            guard.shutdown_unless(|| ending.hurries());
            return Err(fault);
        }
    };
    let mut ending = warden.close(code);
    let code = if ending.left_threads() {
        exit::FORCED
    } else {
        code
    };
    crate::notice!("stopped, exit code {code}");
    let lost_before = lost_lines(&last_look);
    let is_written = guard.shutdown_unless(|| ending.hurries());
    let is_whole = is_written && lost_lines(&last_look) == lost_before;
    if ending.has_hurried() && !is_whole {
        return Ok(exit::FORCED);
    }
    Ok(code)
}

/// How many lines sinks have lost, or never got.
fn lost_lines(logger: &Logger) -> u64 {
    let stats = logger.stats();
    let lost = stats.sinks.iter().map(|sink| sink.lost);
    lost.chain(stats.dropped).sum()
}

fn check(settings: &Settings) -> Result<u8, Fault> {
    eprint!("{}", settings.remarks);
    // The configuration may be for another machine.
    if let Err(fault) = rooms::fit_pool(settings, settings.limits.threads) {
        eprintln!("warning: here it would not start: {fault}");
    }
    for remark in rooms::log_remarks(settings) {
        eprintln!("warning: here: {remark}");
    }
    let mut text = config::effective(settings);
    for wall in sandbox::preview(&rooms::preview_plan(settings)).walls() {
        let detail = if wall.detail.is_empty() {
            String::new()
        } else {
            format!(" ({})", wall.detail)
        };
        text.push_str(&format!(
            "# sandbox: {}: {}{detail}\n",
            wall.name, wall.standing
        ));
    }
    print(&text)
}

/// Prints to stdout. A reader that left early is no fault of ours.
fn print(text: &str) -> Result<u8, Fault> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(exit::OK),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(error) => Err(Fault::new(
            exit::CANNOT_CREATE,
            "can't write to stdout",
            &error,
        )),
    }
}
