//! What a reload can't put in force: it stays as it was at the start, and the rest is
//! read beside it, as defaults and checks may depend on it.

use super::diagnostics::Diagnostics;
use super::finish;
use super::settings::{self, Settings, Surroundings};

/// The settings in force after a reload that has read `read`, where `start` is what the
/// server was started with.
///
/// # Errors
///
/// What does not go together with the options that stay as they were.
pub fn keep_fixed(
    read: Box<Settings>,
    start: &Settings,
    surroundings: &Surroundings<'_>,
) -> Result<Box<Settings>, Diagnostics> {
    let mut kept = if super::needs_restart(start, &read).is_empty() {
        read
    } else {
        let live = read.given.iter().filter(|given| given.key.live);
        let fixed = start.given.iter().filter(|given| !given.key.live);
        let given: Vec<_> = live.chain(fixed).cloned().collect();
        let mut diagnostics = Diagnostics::default();
        let settings = settings::read(&given, surroundings, &mut diagnostics);
        finish(settings, diagnostics)?
    };
    // Defaults among them may follow options that have changed.
    kept.socket = start.socket.clone();
    kept.walls = start.walls.clone();
    kept.trail.clone_from(&start.trail);
    if let (Some(kept), Some(start)) = (&mut kept.metrics, &start.metrics) {
        kept.path = start.path.clone();
        kept.mode = start.mode;
        kept.group = start.group;
    }
    for one in kept.effective.iter_mut().filter(|one| !one.key.live) {
        let name = one.key.name;
        if let Some(before) = start.effective.iter().find(|one| one.key.name == name) {
            *one = before.clone();
        }
    }
    Ok(kept)
}
