//! What an error reply of Redis means for the event it is for.

use backhaul_guest::Failure;
use redis::ServerError;

use crate::settings::Entry;

/// Only an event above the server's size limit is at fault itself. Anything else
/// would meet every event alike and can be put right on the server or in the
/// manifest, a key of another type (`WRONGTYPE`) and missing rights included:
/// given up as permanent, a mistake of an operator would turn the whole flow into
/// dead letters.
pub(crate) fn of(entry: &Entry<'_>, error: &ServerError) -> Failure {
    let (code, details) = (error.code(), error.details().unwrap_or_default());
    if details.contains("invalid bulk length") {
        let message = "larger than Redis accepts (its setting proto-max-bulk-len)";
        return Failure::permanent(entry.index, message);
    }
    let hint = hint(&entry.key, code, details);
    Failure::retryable(
        entry.index,
        format!("Redis refused: {code} {details}{hint}"),
    )
}

/// What to do, where it is known.
fn hint(key: &str, code: &str, details: &str) -> String {
    match code {
        // A command of many or large arguments is refused before its name is read.
        _ if code == "NOAUTH" || details.contains("unauthenticated") => {
            "; Redis asks for a password, set REDIS_PASSWORD or REDIS_URL".to_owned()
        }
        "NOPERM" => format!("; allow the user XADD on the key {key:?}"),
        "WRONGTYPE" => format!("; remove the key {key:?} or change REDIS_STREAM"),
        "MOVED" | "ASK" => format!(
            "; the server is a node of a Redis Cluster and another node has the key {key:?}. \
             Redirects are not followed: name that node in REDIS_URL, or a server that is no cluster"
        ),
        "READONLY" => "; the server is a replica, name the primary in REDIS_URL".to_owned(),
        "LOADING" | "CLUSTERDOWN" | "MASTERDOWN" => "; it is tried again until it works".to_owned(),
        "OOM" => "; raise Redis' maxmemory, or trim with REDIS_MAXLEN or REDIS_MAXAGE".to_owned(),
        _ => String::new(),
    }
}
