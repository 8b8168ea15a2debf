//! Exit codes, as sysexits.h names them, plus the one of a forced stop.
//!
//! Every way in which a program of this crate ends has one of these; scripts and
//! service units may rely on them.

/// All done: served and stopped as asked.
pub const OK: u8 = 0;
/// A stop that had to close connections, because its time was over, or that a second
/// signal cut short.
pub const FORCED: u8 = 1;
/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Input data are wrong: a trail that does not verify (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// A service that is needed is not there (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A fault of the program itself (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
/// The system refused a process, a thread or a descriptor (`EX_OSERR`).
pub const SYSTEM: u8 = 71;
/// A socket, a file or a directory can't be created (`EX_CANTCREAT`).
pub const CANNOT_CREATE: u8 = 73;
/// A right is missing (`EX_NOPERM`).
pub const NO_PERMISSION: u8 = 77;
/// The configuration is wrong, or can't be trusted (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
