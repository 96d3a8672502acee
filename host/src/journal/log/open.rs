//! Opening a log: which segments there are, and where the last one ends.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::damage::{ASIDE, Aside, Damage, DamageKind};
use super::format::{Found, HEADER, Header, RECORDS, SECOND_HEADER, VERSION};
use super::scan::{Gap, Scan, Step};
use super::segment::{NONE, SegmentState, Shared, first_of, segment_name};
use super::{Active, Log, LogOptions, NEW};
use crate::journal::disk::{Disk, DiskFile, read_full};

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Written by a later version of this program.
    #[error(
        "{} has version {version} of the journal's format, and this program knows versions up to \
         {known}: start the newer program again, or give this one another data folder",
        file.display()
    )]
    NewerVersion {
        /// The segment.
        file: PathBuf,
        /// The version it has.
        version: u32,
        /// The newest version known.
        known: u32,
    },
    /// A file with the name of a segment that is none.
    #[error(
        "{} is named like a segment of the journal, but is none: move it out of the folder",
        file.display()
    )]
    NotOurs {
        /// The file.
        file: PathBuf,
    },
    /// A segment under another segment's name.
    #[error(
        "{} is the segment that begins with event {first}: it was renamed or copied; give it its \
         name back ({first:020}.log), or move it out of the folder",
        file.display()
    )]
    WrongName {
        /// The file.
        file: PathBuf,
        /// The seq its header says it begins with.
        first: u64,
    },
    /// The disk.
    #[error("cannot open the journal, {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: LogOptions,
) -> Result<(Log, Vec<Damage>), OpenError> {
    // First, so that no segment is used, and none removed, on the strength of
    // names that a power cut would take back.
    let listed = disk.sync().and_then(|()| names(&*disk));
    let Names { firsts, aside } = listed.map_err(|source| OpenError::Io {
        path: disk.path(""),
        source,
    })?;
    let mut segments: Vec<Arc<SegmentState>> = Vec::new();
    let mut last = None;
    for first in firsts {
        let before = segments.last().cloned();
        let (segment, header, file) = open_segment(&*disk, first, before.as_deref())?;
        if let (Some(before), Some(header)) = (before, header)
            && header.previous == before.first
        {
            before.doubtful.store(header.doubtful, Ordering::Relaxed);
        }
        segments.push(Arc::new(segment));
        last = Some(file);
    }
    let next = segments.last().map_or(1, |segment| segment.first);
    let missing = segments
        .windows(2)
        .any(|two| two[1].previous > two[0].first);
    let shared = Arc::new(Shared::new(disk, segments.clone(), next, aside));
    let mut log = Log {
        shared,
        options,
        active: None,
        group: Vec::new(),
        count: 0,
        too_long: false,
        next,
    };
    let mut damage = Vec::new();
    if missing {
        damage.extend(missing_segments(&log, &segments)?);
    }
    if let (Some(segment), Some(file)) = (segments.last(), last) {
        let failed = |source| OpenError::Io {
            path: log.shared.disk.path(&segment_name(segment.first)),
            source,
        };
        let mut tail = read_last(&log.shared, segment, &file).map_err(failed)?;
        damage.append(&mut tail.damage);
        segment.bytes.store(tail.end, Ordering::Release);
        log.next = tail.next;
        log.shared.next.store(tail.next, Ordering::Release);
        if tail.go_on {
            log.active = Some(Active {
                segment: segment.clone(),
                file,
            });
        }
        if tail.torn {
            // So that the next opening does not find, and report, it again.
            // Not needed to read, and the first commit tries again.
            let _ = log.roll();
        }
    }
    Ok((log, damage))
}

struct Names {
    firsts: Vec<u64>,
    aside: Aside,
}

fn names(disk: &dyn Disk) -> io::Result<Names> {
    let mut firsts = Vec::new();
    let mut aside = HashMap::new();
    for name in disk.list()? {
        if let Some(first) = first_of(&name) {
            firsts.push(first);
        } else if name.ends_with(ASIDE) {
            let bytes = disk.open(&name)?.len()?;
            aside.insert(name, bytes);
        } else if name.strip_suffix(NEW).and_then(first_of).is_some() {
            // A segment that was being made. The next one made removes it if
            // this does not work.
            let _ = disk.remove(&name);
        }
    }
    firsts.sort_unstable();
    Ok(Names {
        firsts,
        aside: Aside::new(aside),
    })
}

type Opened = (SegmentState, Option<Header>, Arc<dyn DiskFile>);

fn open_segment(
    disk: &dyn Disk,
    first: u64,
    before: Option<&SegmentState>,
) -> Result<Opened, OpenError> {
    let name = segment_name(first);
    let path = disk.path(&name);
    let read = || -> io::Result<_> {
        let file = disk.open(&name)?;
        let (bytes, modified) = (
            file.len()?,
            file.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        );
        let mut copies = [[0; HEADER]; 2];
        read_full(&*file, &mut copies[0], 0)?;
        read_full(&*file, &mut copies[1], SECOND_HEADER)?;
        Ok((file, bytes, modified, copies))
    };
    let (file, bytes, modified, copies) = read().map_err(|source| OpenError::Io {
        path: path.clone(),
        source,
    })?;
    let header = match copies.map(|copy| Header::decode(&copy)) {
        [Found::Good(header), _] | [_, Found::Good(header)] => Some(header),
        [Found::Newer(version), _] | [_, Found::Newer(version)] => {
            return Err(OpenError::NewerVersion {
                file: path,
                version,
                known: VERSION,
            });
        }
        [Found::Bad { ours: false }, Found::Bad { ours: false }] => {
            return Err(OpenError::NotOurs { file: path });
        }
        _ => None,
    };
    if let Some(header) = header
        && header.first != first
    {
        return Err(OpenError::WrongName {
            file: path,
            first: header.first,
        });
    }
    // Without a header the name says the most important of it.
    let known = header.unwrap_or(Header {
        salt: 0,
        first,
        previous: before.map_or(0, |before| before.first),
        doubtful: NONE,
    });
    let mut segment = SegmentState::new(&known, bytes, modified);
    if header.is_none() {
        segment.salt = None;
    }
    Ok((segment, header, file))
}

/// The missing segments, with the exact seqs: how far the one before them goes
/// is known only when it has been read.
fn missing_segments(log: &Log, segments: &[Arc<SegmentState>]) -> Result<Vec<Damage>, OpenError> {
    let mut damage = Vec::new();
    for two in segments.windows(2) {
        if two[1].previous > two[0].first {
            let chunk = log
                .reader()
                .read(two[0].first, two[1].first, usize::MAX, &mut |_, _| true)
                .map_err(|source| OpenError::Io {
                    path: log.shared.disk.path(&segment_name(two[0].first)),
                    source,
                })?;
            let missing = |d: &Damage| d.kind == DamageKind::MissingSegment;
            damage.extend(chunk.damage.into_iter().filter(missing));
        }
    }
    Ok(damage)
}

/// What was found at the end of the log.
struct Tail {
    next: u64,
    /// Where the last whole record ends.
    end: u64,
    /// Records can be added behind it.
    go_on: bool,
    /// A part of the last group is missing.
    torn: bool,
    damage: Vec<Damage>,
}

fn read_last(
    shared: &Shared,
    segment: &SegmentState,
    file: &Arc<dyn DiskFile>,
) -> io::Result<Tail> {
    let disk = &*shared.disk;
    let name = segment_name(segment.first);
    let len = segment.bytes.load(Ordering::Relaxed);
    let damaged = |gap: Gap, kind, aside| Damage {
        file: disk.path(&name),
        offset: gap.offset,
        bytes: gap.bytes,
        lost: gap.lost,
        kind,
        aside,
    };
    let empty = |damage| Tail {
        next: segment.first,
        end: len,
        go_on: false,
        torn: false,
        damage,
    };
    let Some(salt) = segment.salt else {
        if len <= RECORDS {
            // It was being made, and no record was in it: the next one made
            // takes its place.
            return Ok(empty(Vec::new()));
        }
        // The next segment made would take its place, so the file itself is
        // set aside.
        let aside = format!("{:020}-0{ASIDE}", segment.first);
        disk.rename(&name, &aside)?;
        disk.sync()?;
        let lost = segment.first..segment.first;
        let gap = Gap {
            offset: 0,
            bytes: len,
            lost,
        };
        let damage = damaged(gap, DamageKind::Unreadable, Some(disk.path(&aside)));
        // The new one keeps the seq, should the one before lack records.
        return Ok(Tail {
            end: 0,
            torn: true,
            ..empty(vec![damage])
        });
    };
    if len < RECORDS {
        return Ok(empty(Vec::new()));
    }

    let mut scan = Scan::new(file.clone(), salt, segment.first);
    let mut end = RECORDS;
    let mut gaps = Vec::new();
    // The first seq of the last group, and where it begins.
    let mut group = (NONE, RECORDS);
    let tail_bytes = loop {
        match scan.step(len, NONE)? {
            Step::Record { frame, offset, gap } => {
                gaps.extend(gap);
                end = offset + frame.total() as u64;
                if group.0 != frame.group().start {
                    group = (frame.group().start, offset);
                }
            }
            Step::End { gap } => break gap.bytes,
        }
    };
    let next = scan.expected();
    let last_group = scan.last_frame().map_or(next..next, |frame| frame.group());
    // Bytes behind a whole group were written after it had been accepted.
    let doubtful = if tail_bytes > 0 && last_group.end <= next {
        NONE
    } else {
        last_group.start
    };

    // The system may hold bytes that it failed to write, and count them as
    // written: only a write makes it try again. They are the same bytes, so
    // losing power now does no harm.
    let mut go_on = true;
    match write_again(&**file, group.1, end) {
        // Without space on a disk that never writes in place, reading must
        // still be possible: it is what makes space.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            segment.doubtful.store(last_group.start, Ordering::Relaxed);
            go_on = false;
        }
        done => done?,
    }

    let mut damage = Vec::new();
    let mut torn = false;
    for gap in gaps {
        let kind = if gap.lost.start >= doubtful {
            segment.doubtful.store(doubtful, Ordering::Relaxed);
            torn = true;
            DamageKind::TornTail
        } else {
            DamageKind::Unreadable
        };
        let aside = shared
            .aside
            .keep(disk, &**file, segment.first, gap.offset, gap.bytes);
        damage.push(damaged(gap, kind, aside));
    }
    let lost = next..last_group.end.max(next);
    if tail_bytes > 0 || !lost.is_empty() {
        torn |= !lost.is_empty();
        let aside = shared
            .aside
            .keep(disk, &**file, segment.first, end, tail_bytes);
        // What cannot be copied is left where it is; the next segment's name
        // makes it void.
        let cut = tail_bytes == 0 || (aside.is_some() && file.set_len(end).is_ok());
        go_on &= cut;
        damage.push(damaged(
            Gap {
                offset: end,
                bytes: tail_bytes,
                lost,
            },
            DamageKind::TornTail,
            aside,
        ));
    }
    file.sync()?;
    Ok(Tail {
        next,
        end,
        go_on: go_on && !torn,
        torn,
        damage,
    })
}

/// Writes a stretch of a file with the bytes it has.
fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; (to - from).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let want = (to - at).min(buffer.len() as u64) as usize;
        let got = read_full(file, &mut buffer[..want], at)?;
        if got == 0 {
            break;
        }
        file.write_all_at(&buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}
