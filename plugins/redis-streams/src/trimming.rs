//! How much of a stream is kept: the options of `XADD` for that.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backhaul_guest::{SettingError, parsed_setting};
use redis::Cmd;

/// What Redis removes when an entry is added. It trims in whole steps (`~`), which
/// is cheap; there may be more than the limit says, never less.
#[derive(Debug, PartialEq)]
pub(crate) enum Trimming {
    None,
    /// `REDIS_MAXLEN`: the number of entries to keep.
    Length(NonZeroU64),
    /// `REDIS_MAXAGE`: how long an entry is kept.
    Age(Duration),
}

impl Trimming {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let length = parsed_setting("REDIS_MAXLEN", "a whole number of entries, at least 1")?;
        let age: Option<humantime::Duration> =
            parsed_setting("REDIS_MAXAGE", "a time such as 36h or 7days")?;
        match (length, age) {
            (None, None) => Ok(Trimming::None),
            (Some(length), None) => Ok(Trimming::Length(length)),
            (None, Some(age)) => Ok(Trimming::Age(age.into())),
            (Some(_), Some(age)) => Err(SettingError::invalid(
                "REDIS_MAXAGE",
                &age.to_string(),
                "absent where REDIS_MAXLEN is set: Redis trims a stream by one of them",
            )),
        }
    }

    /// Appends the options, which stand behind the stream's key.
    pub(crate) fn write_options(&self, command: &mut Cmd) {
        match self {
            Trimming::None => {}
            Trimming::Length(length) => {
                command.arg("MAXLEN").arg("~").arg(length.get());
            }
            Trimming::Age(age) => {
                let oldest = oldest(SystemTime::now(), *age);
                command.arg("MINID").arg("~").arg(oldest);
            }
        }
    }
}

/// The first part of the oldest id to keep: Redis makes ids of the time in
/// milliseconds.
fn oldest(now: SystemTime, age: Duration) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(trimming: &Trimming) -> String {
        let mut command = redis::cmd("XADD");
        trimming.write_options(&mut command);
        String::from_utf8(command.get_packed_command()).unwrap()
    }

    #[test]
    fn a_stream_is_trimmed_by_length_or_age_or_not_at_all() {
        assert!(written(&Trimming::None).starts_with("*1\r\n"));
        let length = written(&Trimming::Length(NonZeroU64::new(7).unwrap()));
        assert!(
            length.contains("MAXLEN\r\n$1\r\n~\r\n$1\r\n7\r\n"),
            "{length}"
        );
        let age = written(&Trimming::Age(Duration::from_secs(60)));
        assert!(age.contains("MINID\r\n$1\r\n~\r\n"), "{age}");
    }

    #[test]
    fn the_oldest_id_is_the_time_of_now_without_the_age() {
        let now = UNIX_EPOCH + Duration::from_millis(5_000);
        assert_eq!(oldest(now, Duration::from_millis(1_500)), 3_500);
        assert_eq!(oldest(now, Duration::MAX), 0, "all is younger");
    }
}
