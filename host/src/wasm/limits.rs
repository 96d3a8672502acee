//! What one instance may use, and how that is enforced.
//!
//! Memory is limited where it grows, by `MemoryMeter`. Time is limited around
//! each call, in `instance`; the engine's epoch makes that work for a guest that
//! never waits, and has `cpu` count. Handles are limited in the instance's
//! `state`, output in `output`.

use std::time::Duration;

use wasmtime::ResourceLimiter;

/// The most elements all tables of an instance may hold together. A table entry
/// is a pointer of the host; components in use have some hundreds.
pub(super) const MAX_TABLE_ELEMENTS: usize = 100_000;

/// The most bytes one call may have the host copy out of the guest. Wasmtime
/// counts; it bounds what a list of overlapping strings can make of a guest's
/// memory in the host's.
pub(super) const MAX_COPIED_BYTES: usize = 16 << 20;

/// What one plugin may use.
///
/// Change what is of interest and leave the rest: `Limits { memory: 16 << 20,
/// ..Limits::default() }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of memory of one instance. Default 64 MiB.
    pub memory: u64,
    /// The most time of one call, with all the waiting in it. Default 5 s.
    pub timeout: Duration,
    /// The most time until a new instance runs and has said its name. Default
    /// 10 s.
    pub start_timeout: Duration,
    /// The most processor time of one call, or of the start of an instance;
    /// waiting does not count. Looked at every 10 ms. Default 2 s.
    pub cpu: Duration,
    /// The most time compiling the component may take. Default 60 s.
    pub compile_timeout: Duration,
    /// How many instances may run side by side. 1, the default, keeps order.
    pub instances: usize,
    /// The most handles one instance may hold: files, sockets, their streams, and
    /// what it waits with. A TCP connection takes three. It bounds the host's
    /// file descriptors, of which a process often has 1,024, that a guest can use
    /// up. Default 512.
    pub handles: usize,
    /// The most lines a second that are logged of what all instances print, over
    /// any ten seconds. Default 100.
    pub log: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory: 64 << 20,
            timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(10),
            cpu: Duration::from_secs(2),
            compile_timeout: Duration::from_secs(60),
            instances: 1,
            handles: 512,
            log: 100,
        }
    }
}

/// Counts the memory of one instance and refuses what is over the limit.
#[derive(Debug)]
pub(super) struct MemoryMeter {
    limit: usize,
    used: usize,
    table_elements: usize,
    /// Whether something was refused: the reason of the trap that mostly follows.
    pub(super) refused: bool,
    /// The same of tables.
    pub(super) tables_refused: bool,
}

impl MemoryMeter {
    pub(super) fn new(limit: u64) -> MemoryMeter {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        MemoryMeter {
            limit,
            used: 0,
            table_elements: 0,
            refused: false,
            tables_refused: false,
        }
    }

    /// How many bytes all memories have together.
    pub(super) fn used(&self) -> u64 {
        self.used as u64
    }

    fn grow(counter: &mut usize, limit: usize, current: usize, desired: usize) -> bool {
        // Wasmtime asks with the size of one memory (or table); the limit is on
        // all of them together.
        let total = counter.saturating_add(desired.saturating_sub(current));
        if total > limit {
            return false;
        }
        *counter = total;
        true
    }
}

impl ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = Self::grow(&mut self.used, self.limit, current, desired);
        self.refused |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = Self::grow(
            &mut self.table_elements,
            MAX_TABLE_ELEMENTS,
            current,
            desired,
        );
        self.tables_refused |= !granted;
        Ok(granted)
    }

    // Each memory takes address space whether it is used or not.
    fn memories(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        256
    }

    // Of core modules: languages that link at start have some dozens.
    fn instances(&self) -> usize {
        256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_on_all_memories_together() {
        let mut meter = MemoryMeter::new(100);
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(meter.memory_growing(0, 40, None).unwrap());
        assert!(!meter.refused);
        assert!(!meter.memory_growing(40, 41, None).unwrap());
        assert!(meter.refused);
    }
}
