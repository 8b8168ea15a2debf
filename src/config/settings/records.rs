//! The trail of decisions and the metrics socket.

use std::path::{Path, PathBuf};

use super::super::accounts::RuleNames;
use super::super::endpoint;
use super::super::reader::Reader;
use super::super::values;
use super::socket::{RightsOptions, rights, warn_of_rights};
use super::{LogSettings, SocketSettings, Surroundings, peers};
use crate::ids::{Gid, Uid};
use crate::listener::{Address, SocketMode, SocketPath};
use crate::policy::Policy;
use crate::sandbox::RunAs;
use crate::trail::{Options, SyncPolicy};

/// The metrics socket.
#[derive(Clone, Debug)]
pub struct MetricsSettings {
    /// Where it is.
    pub path: SocketPath,
    /// The mode that it gets.
    pub mode: SocketMode,
    /// The group that owns it. `None`: that of the server.
    pub group: Option<Gid>,
    /// Who may read.
    pub policy: Policy,
}

const METRICS: RightsOptions = RightsOptions {
    mode: "metrics_permissions",
    group: "metrics_group",
};

pub(super) fn read_trail(
    reader: &mut Reader<'_>,
    run_as: Option<&RunAs>,
) -> Option<Option<Options>> {
    let file = reader.maybe("trail_file", |text| values::path(text).map(PathBuf::from));
    let sync = reader.one("trail_sync", |text| {
        match values::word(text, &["no", "batch", "each"])? {
            "no" => Ok(SyncPolicy::No),
            "batch" => Ok(SyncPolicy::Batch),
            _ => Ok(SyncPolicy::Each),
        }
    })?;
    let max_size = reader.size("trail_max_size")?;
    let keep: u32 = reader.number("trail_keep")?;
    let Some(file) = file else {
        for name in ["trail_sync", "trail_max_size", "trail_keep"] {
            reader.idle(name, "trail_file is not given");
        }
        return Some(None);
    };
    let owner = run_as.map(|run_as| (run_as.uid, run_as.gid));
    let keep = usize::try_from(keep).ok()?;
    Some(Some(Options {
        path: file.value,
        owner,
        sync,
        max_size,
        keep,
    }))
}

pub(super) fn read_metrics(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    own_user: Uid,
) -> Option<Option<MetricsSettings>> {
    let path = reader.maybe("metrics_socket", endpoint::socket_path);
    let names = RuleNames {
        accounts: surroundings.accounts,
        own_user,
    };
    let policy = peers::policy(reader, &names, None, "metrics_allow", "metrics_deny");
    let (mode, group) = rights(reader, surroundings, &policy, &METRICS);
    let Some(path) = path else {
        for name in [
            "metrics_allow",
            "metrics_deny",
            "metrics_permissions",
            "metrics_group",
        ] {
            reader.idle(name, "metrics_socket is not given");
        }
        return Some(None);
    };
    if !path.value.is_abstract() {
        warn_of_rights(reader, &policy, (mode, group), &METRICS);
    }
    Some(Some(MetricsSettings {
        path: path.value,
        mode,
        group,
        policy,
    }))
}

/// Two options that name one file.
pub(super) fn check_paths(
    reader: &mut Reader<'_>,
    socket: &SocketSettings,
    logs: &LogSettings,
    trail: Option<&Options>,
    metrics: Option<&MetricsSettings>,
) {
    let own = match &socket.address {
        Address::Unix(path) => Some(path),
        Address::Inet(_) => None,
    };
    if metrics.is_some_and(|metrics| Some(&metrics.path) == own) {
        reader.error("metrics_socket", "is the path of socket_path");
    }
    let sockets: Vec<&Path> = own
        .into_iter()
        .chain(metrics.map(|metrics| &metrics.path))
        .filter_map(SocketPath::as_path)
        .collect();
    let log_file = logs.file.as_deref();
    let trail_file = trail.map(|trail| trail.path.as_path());
    for (name, file) in [("log_file", log_file), ("trail_file", trail_file)] {
        if file.is_some_and(|file| sockets.contains(&file)) {
            reader.error(name, "is the path of a socket");
        }
    }
    if trail_file.is_some() && trail_file == log_file {
        reader.error("trail_file", "is the path of log_file");
    }
}
