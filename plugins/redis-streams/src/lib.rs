//! Backend `redis-streams`: adds each event to a Redis stream with `XADD`.
mod refusal;
mod settings;
mod trimming;

use backhaul_guest::{Backend, Event, Failure, OpenError};
use redis::{Connection, Value};
use settings::Settings;

struct RedisStreams(Settings, Connection);

impl Backend for RedisStreams {
    const NAME: &'static str = "redis-streams";

    fn open() -> Result<Self, OpenError> {
        let settings = Settings::from_env()?;
        let connection = settings.connect()?;
        Ok(Self(settings, connection))
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let Self(settings, connection) = self;
        let mut failures = Vec::new();
        let entries = settings.entries(events, &mut failures);
        // Redis works on one chunk while the next is encoded (16 measured best). If
        // one cannot be sent, the replies still tell which of those before are in.
        let mut chunks = entries.chunks(16).map(|chunk| settings.xadds(chunk));
        let _ = chunks.try_for_each(|xadds| connection.send_packed_command(&xadds));
        for (position, entry) in entries.iter().enumerate() {
            match connection.recv_response() {
                Ok(Value::ServerError(error)) => failures.push(refusal::of(entry, &error)),
                // The id of the new entry.
                Ok(Value::BulkString(_)) => {}
                Ok(_) => {
                    let reason = "it answers something else than was asked; is it a Redis server?";
                    failures.extend(settings.lost(&entries[position..], reason));
                    break;
                }
                Err(error) => {
                    let reason = settings::explain(&error);
                    failures.extend(settings.lost(&entries[position..], &reason));
                    break;
                }
            }
        }
        Err(failures)
    }
}
backhaul_guest::export!(RedisStreams);
