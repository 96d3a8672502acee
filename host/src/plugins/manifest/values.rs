//! Values of a manifest that are written as text or numbers within a range.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A size in bytes from 1 MiB to 4 GiB, written `"64MiB"`.
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let wrong = || D::Error::custom("is not a size from 1MiB to 4GiB, such as \"64MiB\"");
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let size: bytesize::ByteSize = text.parse().map_err(|_| wrong())?;
        match (1 << 20..=4 << 30).contains(&size.as_u64()) {
            true => Ok(Size(size.as_u64())),
            false => Err(wrong()),
        }
    }
}

/// A time from `MIN` milliseconds to an hour, written `"5s"`.
pub(super) struct Span<const MIN: u64>(pub(super) Duration);

impl<'de, const MIN: u64> Deserialize<'de> for Span<MIN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span<MIN>, D::Error> {
        let wrong = || {
            D::Error::custom(format!(
                "is not a time from {MIN}ms to 1h, such as \"5s\" or \"500ms\""
            ))
        };
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let span = humantime::parse_duration(&text).map_err(|_| wrong())?;
        match (Duration::from_millis(MIN)..=Duration::from_secs(3600)).contains(&span) {
            true => Ok(Span(span)),
            false => Err(wrong()),
        }
    }
}

/// A time from a second to 365 days, written `"24h"`.
pub(super) struct Age(pub(super) Duration);

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Age, D::Error> {
        let wrong =
            || D::Error::custom("is not a time from 1s to 365days, such as \"24h\" or \"7days\"");
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let age = humantime::parse_duration(&text).map_err(|_| wrong())?;
        match (Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600)).contains(&age) {
            true => Ok(Age(age)),
            false => Err(wrong()),
        }
    }
}

/// A number from 1 to 10, with or without a fraction.
pub(super) struct Factor(pub(super) f64);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Factor, D::Error> {
        let factor = match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::Float(factor)) => factor,
            Ok(toml::Value::Integer(factor)) => factor as f64,
            _ => f64::NAN,
        };
        match (1.0..=10.0).contains(&factor) {
            true => Ok(Factor(factor)),
            false => Err(D::Error::custom("is not a number from 1.0 to 10.0")),
        }
    }
}

/// A whole number from `MIN` to `MAX`.
pub(super) struct Count<const MIN: usize, const MAX: usize>(pub(super) usize);

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count<MIN, MAX>, D::Error> {
        match usize::deserialize(deserializer) {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Count(count)),
            _ => Err(D::Error::custom(format!(
                "is not a whole number from {MIN} to {MAX}"
            ))),
        }
    }
}

/// A SHA-256 digest, written as `sha256sum` shows it.
pub(super) struct Sha256(pub(super) [u8; 32]);

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sha256, D::Error> {
        let wrong = || D::Error::custom("is not 64 hexadecimal digits, as `sha256sum` prints them");
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits
            .filter(|digits| digits.len() == 64)
            .ok_or_else(wrong)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] << 4 | pair[1]) as u8;
        }
        Ok(Sha256(digest))
    }
}
