//! Where the value of an environment variable comes from: the manifest itself, a
//! file, or the host's environment.
//!
//! No message of this file holds a value.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;

use super::read_text;
use crate::wasm::EnvValue;

pub(super) enum Source {
    Text(String),
    File(PathBuf),
    Host(String),
    /// None of these. An error that is told when the variable's name is known.
    Wrong,
}

/// Reads the table of variables.
pub(super) fn variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Spanned<Source>>, D::Error> {
    // serde's own message would quote what stands there instead.
    let wrong = |_| D::Error::custom("is not a table such as { NAME = \"text\" }");
    BTreeMap::deserialize(deserializer).map_err(wrong)
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        // serde's own messages would quote the value.
        let table = match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(text)) => return Ok(Source::Text(text)),
            Ok(toml::Value::Table(table)) if table.len() == 1 => table,
            _ => return Ok(Source::Wrong),
        };
        Ok(match table.into_iter().next() {
            Some((key, toml::Value::String(file))) if key == "file" => Source::File(file.into()),
            Some((key, toml::Value::String(name))) if key == "env" => Source::Host(name),
            _ => Source::Wrong,
        })
    }
}

impl Source {
    /// The value, for a variable called `name`.
    pub(super) fn value(self, name: &str) -> Result<EnvValue, String> {
        let value = match self {
            Source::Text(text) => EnvValue::Plain(text),
            Source::File(path) => {
                let text = read_text(&path).map_err(|error| {
                    format!("the file {} cannot be read: {error}", path.display())
                })?;
                EnvValue::Secret(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Source::Host(name) => EnvValue::Secret(host_variable(&name)?),
            Source::Wrong => {
                return Err("is neither a text nor { file = \"PATH\" } nor \
                    { env = \"HOST_VARIABLE\" }"
                    .to_owned());
            }
        };
        if name.is_empty() || name.contains(['=', '\0']) || value.reveal().contains('\0') {
            return Err(
                "a variable's name may not be empty or hold `=`, and neither name nor value may \
                 hold a NUL character"
                    .to_owned(),
            );
        }
        Ok(value)
    }
}

fn host_variable(name: &str) -> Result<String, String> {
    // The system's functions take no other names.
    let value = match name.is_empty() || name.contains(['=', '\0']) {
        true => None,
        false => std::env::var_os(name),
    };
    let value = value.ok_or_else(|| {
        format!("the host's environment has no variable {name:?}; set it where the host is started")
    })?;
    let not_text = |_| format!("the host's variable {name:?} is not UTF-8");
    value.into_string().map_err(not_text)
}
