//! Redis: `XADD`s in a pipeline.

use std::process::Command;

use anyhow::Context;
use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::Grants;
use backhaul_tests::redis_server::RedisServer;

use super::{Bench, Broker, Client, tcp};
use crate::report::Report;
use crate::{event, payload};

const STREAM: &str = "backhaul:events";

/// Batches that are not full, and how many events a round has.
const SMALL: [(&str, usize, usize); 2] = [
    ("redis-batch-1", 1, 10_000),
    ("redis-batch-64", 64, 256_000),
];

const DURABLE: &str = "durable-to-redis";

/// The benchmarks that only Redis has.
pub(super) const MORE: [&str; 3] = [SMALL[0].0, SMALL[1].0, DURABLE];

pub(super) async fn run(redis: &Bench<Redis>, report: &Report) -> anyhow::Result<()> {
    for (name, batch, events) in SMALL {
        redis.batches(report, name, batch, events).await?;
    }
    if report.wants(DURABLE) {
        redis.durable(report, DURABLE).await?;
    }
    Ok(())
}

pub(super) struct Redis(RedisServer);

#[async_trait]
impl Broker for Redis {
    const NAME: &str = "redis";
    const PLUGIN: &str = "redis-streams";
    const CLIENT: &str = "the redis crate, a pipeline of XADD";
    const EVENTS: usize = 256_000;

    async fn start() -> anyhow::Result<Option<Redis>> {
        Ok(RedisServer::with(&["--appendonly", "no"]).map(Redis))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        tcp(&self.0.address())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("REDIS_URL", self.0.url())]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        Ok(redis::cmd("FLUSHALL").query(&mut self.0.connect())?)
    }

    async fn len(&self) -> anyhow::Result<usize> {
        Ok(self.0.len(STREAM))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Connection(self.0.connect())))
    }

    fn tool(&self) -> Option<&'static str> {
        Some("redis-benchmark -P 256 -c 1")
    }

    fn run_tool(&self, events: usize) -> anyhow::Result<f64> {
        let (_, port) = self
            .0
            .address()
            .rsplit_once(':')
            .map(|(h, p)| (h.to_owned(), p.to_owned()))
            .context("a port")?;
        let (events, event) = (events.to_string(), event());
        let data = String::from_utf8(payload().to_vec())?;
        let time = event.time().to_string();
        let output = Command::new("redis-benchmark")
            .args(["-p", &port, "-n", &events, "-P", "256", "-c", "1", "--csv"])
            .args(["XADD", STREAM, "*", "id", event.id()])
            .args(["type", event.event_type(), "source", event.source()])
            .args(["time", &time, "data", &data])
            .args(["datacontenttype", "application/json"])
            .output()
            .context("redis-benchmark")?;
        let text = String::from_utf8(output.stdout)?;
        // "name","rps",... and below it the figures; the command's own quotes are
        // escaped, so the second field is found from the end.
        let line = text.lines().last().context("no output")?;
        let fields: Vec<&str> = line.rsplitn(8, ',').collect();
        let rate = fields.get(6).context("no rate")?;
        Ok(rate.trim_matches('"').parse()?)
    }
}

struct Connection(redis::Connection);

#[async_trait]
impl Client for Connection {
    /// Blocks its thread; nothing else is to be done meanwhile.
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut pipeline = redis::pipe();
        for event in events {
            pipeline.add_command(xadd(event)).ignore();
        }
        Ok(pipeline.query(&mut self.0)?)
    }
}

/// The same fields as the plugin writes.
fn xadd(event: &Event) -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg("*");
    command.arg("id").arg(event.id());
    command.arg("type").arg(event.event_type());
    command.arg("source").arg(event.source());
    command.arg("time").arg(event.time().to_string());
    command.arg("data").arg(&event.data()[..]);
    command.arg("datacontenttype").arg(event.content_type());
    command
}
