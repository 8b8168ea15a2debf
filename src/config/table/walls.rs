//! What the server gives up before it serves.

use super::super::key::{Key, Kind, Preset};

pub(crate) static KEYS: &[Key] = &[
    Key::new("run_as_user", Kind::Text("a user's name or uid"), Preset::Nothing)
        .help("Become this user after bind. Directories, socket and files that the server creates belong to it.")
        .example("secure_socket"),
    Key::new("run_as_group", Kind::Text("a group's name or gid"), Preset::Follows("the primary group of `run_as_user`"))
        .help("Become this group after bind.")
        .example("secure_socket"),
    Key::new("sandbox", Kind::Word(&["enforce", "best_effort", "off"]), Preset::Value("enforce"))
        .help("`enforce`: refuse to start unless every wall stands; `best_effort`: start and say what is missing; `off`.")
        .example("best_effort"),
    Key::new("seccomp", Kind::Word(&["kill", "trap", "log", "off"]), Preset::Value("kill"))
        .help("What a system call that is not on the list does: `kill`; `trap` names the call in the log, then dies; `log`; `off`.")
        .example("trap"),
];
