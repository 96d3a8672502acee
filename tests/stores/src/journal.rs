//! Sources of the host that are measured here: the journal's log stands on nothing
//! but the disk below it.

#[path = "../../../host/src/journal/disk.rs"]
pub(crate) mod disk;
#[path = "../../../host/src/journal/log/mod.rs"]
pub(crate) mod log;
