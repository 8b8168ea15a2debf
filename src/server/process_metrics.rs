//! Memory, descriptors and time that this process uses, under the names that
//! Prometheus' own clients give them.
//!
//! The files below `/proc/self` are opened before the walls rise and read again
//! for each answer, so that no path has to stay open.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::exposition::Exposition;
use super::metrics::Source;

/// Reads what the kernel counts for this process (proc(5)).
#[derive(Debug)]
pub struct ProcessMetrics {
    status: File,
    stat: File,
    limits: File,
    descriptors: File,
    ticks: f64,
}

impl ProcessMetrics {
    /// Opens the files.
    ///
    /// # Errors
    /// Without `/proc`.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            status: File::open("/proc/self/status")?,
            stat: File::open("/proc/self/stat")?,
            limits: File::open("/proc/self/limits")?,
            descriptors: File::open("/proc/self/fd")?,
            // Shown in hundredths of a second on every Linux that Rust runs on
            // (times(2), USER_HZ).
            ticks: 100.0,
        })
    }

    fn limit(&self) -> Option<u64> {
        let text = read(&self.limits)?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse().ok()
    }
}

impl Source for ProcessMetrics {
    fn collect(&self, text: &mut Exposition) {
        let status = read(&self.status).unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(number.saturating_mul(1_024))
        };
        if let (Some(size), Some(resident)) = (kib("VmSize:"), kib("VmRSS:")) {
            text.gauge("process_virtual_memory_bytes", "Virtual memory size.")
                .value(size);
            text.gauge("process_resident_memory_bytes", "Resident memory size.")
                .value(resident);
        }
        // Since Linux 6.2 the directory's size is the number of its entries.
        if let Some(count) = self
            .descriptors
            .metadata()
            .ok()
            .map(|meta| meta.size())
            .filter(|n| *n > 0)
        {
            text.gauge("process_open_fds", "Open file descriptors.")
                .value(count);
        }
        if let Some(limit) = self.limit() {
            text.gauge("process_max_fds", "Most file descriptors that may be open.")
                .value(limit);
        }
        let stat = read(&self.stat).unwrap_or_default();
        // The name may hold anything; what follows its last bracket is fields only.
        let fields = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let field = |number: usize| {
            fields
                .split(' ')
                .nth(number)
                .and_then(|f| f.parse::<u32>().ok())
        };
        if let (Some(user), Some(system)) = (field(11), field(12)) {
            text.counter("process_cpu_seconds", "User and system time spent.")
                .value((f64::from(user) + f64::from(system)) / self.ticks);
        }
        if let Some(threads) = field(17) {
            text.gauge("process_threads", "Threads of the process.")
                .value(threads);
        }
    }
}

fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; 4_096];
    let count = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(count);
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Form;
    use super::*;

    #[test]
    fn the_kernels_counts_are_told() {
        let mut text = Exposition::new(Form::OpenMetrics);
        ProcessMetrics::open().unwrap().collect(&mut text);
        let text = text.finish();
        for name in [
            "resident_memory_bytes",
            "cpu_seconds_total",
            "max_fds",
            "threads",
        ] {
            let sample = text
                .lines()
                .find(|line| line.starts_with(&format!("process_{name} ")));
            assert!(sample.is_some(), "{name} in {text}");
        }
    }
}
