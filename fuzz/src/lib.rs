//! The bodies of the fuzz targets: one module each, with the properties that its
//! target asserts at its head. `fuzz_targets/` holds nothing but their entries.

pub mod arguments;
pub mod broker_session;
pub mod config_file;
pub mod frame_decoder;
pub mod log_escape;
pub mod metrics_request;
pub mod peer_spec;
pub mod policy;
pub mod proc_cmdline;
pub mod proc_stat;
pub mod proxy_header;
pub mod relay_schedule;
pub mod rotation_names;
mod surroundings;
pub mod trail_verify;

/// Whether a text stays on its line and steers no terminal.
fn is_quiet(text: &str) -> bool {
    text.chars().all(|character| {
        !character.is_control()
            && !matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}
