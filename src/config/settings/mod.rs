//! A configuration in force: typed values, one struct for each group of options.
//!
//! - Each value is within its bounds, and options that depend on each other fit
//!   together; what does not was reported and made no `Settings`.
//! - Names of users and groups are ids already.
//!
//! Not here: opening, creating or connecting to anything.

mod limits;
mod logs;
mod peers;
mod records;
mod service;
mod socket;
mod walls;

use std::ffi::OsString;

pub use limits::LimitSettings;
pub use logs::{LogSettings, LogTarget};
pub use peers::{PeerSettings, ProcessChecks};
pub use records::MetricsSettings;
pub use service::ServiceSettings;
pub use socket::SocketSettings;
pub use walls::WallSettings;

pub(crate) use peers::{at_column, rule};
pub(crate) use socket::socket_path;

use super::accounts::Accounts;
use super::diagnostics::Diagnostics;
use super::given::Given;
use super::key::DAEMON;
use super::reader::{Effective, Reader};
use crate::ids::{Gid, Uid};
use crate::trail;

/// What a configuration depends on besides its own text.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The effective user who runs the program.
    pub euid: Uid,
    /// The effective group.
    pub egid: Gid,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<&'a OsString>,
    /// Who is who.
    pub accounts: &'a dyn Accounts,
}

/// A configuration in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the socket is and who may reach it.
    pub socket: SocketSettings,
    /// Who is admitted.
    pub peers: PeerSettings,
    /// What an admitted peer gets.
    pub service: ServiceSettings,
    /// How many, how fast and for how long.
    pub limits: LimitSettings,
    /// What is logged, where to.
    pub logs: LogSettings,
    /// The trail of decisions, if there is one.
    pub trail: Option<trail::Options>,
    /// The metrics socket, if there is one.
    pub metrics: Option<MetricsSettings>,
    /// What the server gives up.
    pub walls: WallSettings,
    /// The configuration file, as it was named.
    pub file: Option<String>,
    /// Each option as text, and where its value came from.
    pub effective: Vec<Effective>,
    /// Warnings and notices; no errors.
    pub remarks: Diagnostics,
    /// What it was made from.
    pub(crate) given: Vec<Given>,
}

/// Reads all options. `None` only where diagnostics hold an error.
pub(crate) fn read(
    given: &[Given],
    surroundings: &Surroundings<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Settings> {
    let mut reader = Reader::new(DAEMON, given);
    let settings = read_groups(&mut reader, surroundings);
    let (effective, found) = reader.finish();
    diagnostics.append(found);
    if settings.is_none() && !diagnostics.has_errors() {
        // Excluded by the test that reads every default; said rather than hidden.
        diagnostics.error(None, "", "a default of the table of options is no value");
    }
    settings.map(|settings| Settings {
        effective,
        given: given.to_vec(),
        ..settings
    })
}

fn read_groups(reader: &mut Reader<'_>, surroundings: &Surroundings<'_>) -> Option<Settings> {
    let file = reader.maybe("config", |text| Ok(text.to_owned()));
    let walls = walls::read(reader, surroundings)?;
    let own_user = walls
        .run_as
        .as_ref()
        .map_or(surroundings.euid, |run_as| run_as.uid);
    let mut peers = peers::read(reader, surroundings, own_user)?;
    let socket = socket::read(reader, surroundings, &peers.policy)?;
    let mut service = service::read(reader, surroundings, own_user, &socket)?;
    service.broker.proof_timeout = peers.proof_timeout;
    let limits = limits::read(reader, surroundings, &peers.policy, service.service)?;
    let excepted = limits.admission.exceptions.iter().map(|one| &one.rule);
    let others = service.permits.rules().chain(excepted).cloned().collect();
    peers.policy = peers.policy.also_learning_for(others);
    let logs = logs::read(reader)?;
    let trail = records::read_trail(reader, walls.run_as.as_ref())?;
    let metrics = records::read_metrics(reader, surroundings, own_user)?;
    peers::check_against_service(reader, &peers, &socket, &service);
    records::check_paths(reader, &socket, &logs, trail.as_ref(), metrics.as_ref());
    Some(Settings {
        socket,
        peers,
        service,
        limits,
        logs,
        trail,
        metrics,
        walls,
        file: file.map(|file| file.value),
        effective: Vec::new(),
        remarks: Diagnostics::default(),
        given: Vec::new(),
    })
}
