//! Reads a stream of Redis, with the `redis` crate. Configured by the variables of
//! `redis-streams`.

use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, RedisResult};

use super::tls::Tunnel;
use super::{PATIENCE, Reader, ReaderError, Setup, from_attributes, from_json};
use crate::event::Event;

/// How many entries are read at a time.
const COUNT: usize = 1000;

/// The entries of one stream, each with its fields.
type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;

pub(super) struct Redis {
    client: Client,
    connection: Option<Connection>,
    stream: String,
    /// The last entry that was read.
    last: String,
    max_event: Option<u64>,
    place: String,
    _tunnel: Option<Tunnel>,
}

impl Redis {
    pub(super) fn open(setup: &Setup<'_>) -> Result<Redis, ReaderError> {
        let stream = setup.filled("REDIS_STREAM", "backhaul:events")?;
        let url = setup.variable_or("REDIS_URL", "redis://127.0.0.1:6379");
        // The crate's own error may quote the URL.
        let unusable = |_| ReaderError("REDIS_URL is no address of Redis".to_owned());
        let mut info = url.into_connection_info().map_err(unusable)?;
        if let Some(password) = setup.variable("REDIS_PASSWORD") {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let place = format!("the stream {stream} of Redis at {}", info.addr());
        let tunnel = match info.addr() {
            ConnectionAddr::Tcp(host, port) => setup.tunnel(host, *port)?,
            _ => None,
        };
        if let Some(address) = tunnel.as_ref().map(Tunnel::address) {
            let address = ConnectionAddr::Tcp(address.ip().to_string(), address.port());
            info = info.set_addr(address);
        }
        let client = Client::open(info).map_err(unusable)?;
        let mut reader = Redis {
            client,
            connection: None,
            stream,
            last: "0-0".to_owned(),
            max_event: None,
            place,
            _tunnel: tunnel,
        };
        let begun = reader.begin();
        begun.map_err(|error| ReaderError::at("read", &reader.place, error))?;
        Ok(reader)
    }

    /// Finds where the stream ends, and what the server takes.
    fn begin(&mut self) -> RedisResult<()> {
        let stream = self.stream.clone();
        let connection = self.connection()?;
        let last: Entries = redis::cmd("XREVRANGE")
            .arg(&stream)
            .arg(&["+", "-", "COUNT", "1"])
            .query(connection)?;
        // Not every user may ask.
        let limit: RedisResult<(String, u64)> = redis::cmd("CONFIG")
            .arg(&["GET", "proto-max-bulk-len"])
            .query(connection);
        self.max_event = limit.ok().map(|(_, limit)| limit);
        if let Some((id, _)) = last.into_iter().next() {
            self.last = id;
        }
        Ok(())
    }

    fn connection(&mut self) -> RedisResult<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.client.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was just made"))
    }

    fn entries(&mut self) -> RedisResult<Entries> {
        let (stream, last) = (self.stream.clone(), self.last.clone());
        let streams: Option<Vec<(String, Entries)>> = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(COUNT)
            .arg("STREAMS")
            .arg(stream)
            .arg(last)
            .query(self.connection()?)?;
        let mut streams = streams.unwrap_or_default();
        Ok(streams
            .pop()
            .map(|(_, entries)| entries)
            .unwrap_or_default())
    }
}

impl Reader for Redis {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let entries = self.entries().map_err(|error| {
            self.connection = None;
            ReaderError::at("read", &self.place, error)
        })?;
        if let Some((id, _)) = entries.last() {
            self.last = id.clone();
        }
        Ok(entries
            .into_iter()
            .filter_map(|(_, fields)| event(fields))
            .collect())
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn max_event(&self) -> Option<u64> {
        self.max_event
    }
}

/// The event of an entry: whole in the field `event`, or its attributes as fields.
fn event(mut fields: Vec<(String, Vec<u8>)>) -> Option<Event> {
    if let Some(at) = fields.iter().position(|(name, _)| name == "event") {
        return from_json(fields.swap_remove(at).1).ok();
    }
    let data = fields.iter().position(|(name, _)| name == "data")?;
    let (_, data) = fields.remove(data);
    let text = |(name, value)| Some((name, String::from_utf8(value).ok()?));
    let attributes: Option<Vec<_>> = fields.into_iter().map(text).collect();
    from_attributes(attributes?, None, data)
}
