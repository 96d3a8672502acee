//! `backhaul dead`: what a running host's backends did not take. `text` is how it
//! looks at a terminal.

mod text;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{self, DEFAULT_HOST};
use text::Letter;

/// How many letters are listed unless told otherwise.
const DEFAULT_LIMIT: usize = 100;

/// How many letters a host gives at once.
const PAGE: usize = 1000;

/// Shows the dead letters of a running host, tries them again, or drops them.
///
/// A dead letter is an event that a backend refused for good, or whose attempts
/// were used up. It is kept until it is tried again or dropped.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Host to ask
    #[arg(long, env = "BACKHAUL_URL", value_name = "URL", default_value = DEFAULT_HOST, global = true)]
    to: String,
}

#[derive(Subcommand)]
enum Command {
    /// Lists dead letters, the oldest first
    List {
        #[command(flatten)]
        filter: Filter,

        /// How many are listed at most [default: 100; with --json all]
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,

        /// Print JSON, with the events and their data
        #[arg(long)]
        json: bool,
    },
    /// Shows a dead letter with its event and data
    Show {
        /// Id of the dead letter
        id: u64,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tries dead letters again; one that fails again is a dead letter again, with
    /// a new id
    Retry(Which),
    /// Removes dead letters for good
    Drop(Which),
}

#[derive(Args)]
struct Filter {
    /// Those of this backend only
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,

    /// Those with events of such a type only, for instance after:*
    #[arg(long = "type", value_name = "PATTERN")]
    event_type: Option<String>,

    /// Those only that were last tried longer ago, for instance 1h
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
}

#[derive(Args)]
struct Which {
    /// Ids of dead letters
    #[arg(value_name = "ID", conflicts_with_all = ["backend", "event_type", "older", "all"])]
    ids: Vec<u64>,

    #[command(flatten)]
    filter: Filter,

    /// Every dead letter
    #[arg(long)]
    all: bool,
}

/// What is done with dead letters.
#[derive(Clone, Copy)]
enum Action {
    Retry,
    Drop,
}

pub(super) fn run(Arguments { command, to }: Arguments) -> anyhow::Result<ExitCode> {
    match command {
        Command::List {
            filter,
            limit,
            json,
        } => list(&to, &filter, limit, json),
        Command::Show { id, json } => show(&to, id, json),
        Command::Retry(which) => Action::Retry.take(&to, &which),
        Command::Drop(which) => Action::Drop.take(&to, &which),
    }
}

/// Dead letters as the host gives them. They are not taken apart before they are
/// shown, so that what is printed is exactly that.
#[derive(Deserialize, Serialize)]
struct Page {
    letters: Vec<Box<RawValue>>,
    total: u64,
    #[serde(skip_serializing)]
    next: Option<u64>,
}

fn list(to: &str, filter: &Filter, limit: Option<usize>, json: bool) -> anyhow::Result<ExitCode> {
    let default = if json { usize::MAX } else { DEFAULT_LIMIT };
    let found = gather(to, filter, limit.unwrap_or(default))?;
    if json {
        println!("{}", text::json(&serde_json::to_string(&found)?));
        return Ok(ExitCode::SUCCESS);
    }
    let letters: Result<Vec<Letter>, _> = found
        .letters
        .iter()
        .map(|letter| serde_json::from_str(letter.get()))
        .collect();
    let letters = letters.context("the answer is none of a host of this version")?;
    print!("{}", text::table(&letters, text::width()));
    let more = found.total.saturating_sub(letters.len() as u64);
    if more > 0 {
        println!("{more} more; raise --limit, or narrow it down with --backend, --type or --older");
    }
    Ok(ExitCode::SUCCESS)
}

/// The first `limit` letters that fit, page by page.
fn gather(to: &str, filter: &Filter, limit: usize) -> anyhow::Result<Page> {
    let mut gathered = Page {
        letters: Vec::new(),
        total: 0,
        next: Some(0),
    };
    while let Some(after) = gathered.next.filter(|_| gathered.letters.len() < limit) {
        let count = (limit - gathered.letters.len()).min(PAGE);
        let query = format!("{}&after={after}&limit={count}", filter.query());
        let url = client::url(to, &format!("/api/dead?{query}"))?;
        let response = client::agent().get(&url).call();
        let page: Page = client::read(response.with_context(|| client::no_answer(&url))?)?;
        gathered.letters.extend(page.letters);
        gathered.total = page.total;
        gathered.next = page.next;
    }
    Ok(gathered)
}

fn show(to: &str, id: u64, json: bool) -> anyhow::Result<ExitCode> {
    let url = client::url(to, &format!("/api/dead/{id}"))?;
    let response = client::agent().get(&url).call();
    let answer: Box<RawValue> = client::read(response.with_context(|| client::no_answer(&url))?)?;
    if json {
        println!("{}", text::json(answer.get()));
        return Ok(ExitCode::SUCCESS);
    }
    let letter: Letter = serde_json::from_str(answer.get())
        .context("the answer is none of a host of this version")?;
    print!("{}", text::letter(&letter)?);
    Ok(ExitCode::SUCCESS)
}

impl Filter {
    /// As the host is asked for it.
    fn query(&self) -> String {
        let parameters = [
            ("backend", &self.backend),
            ("type", &self.event_type),
            ("older", &self.older),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| {
            let value = utf8_percent_encode(value.as_ref()?, NON_ALPHANUMERIC);
            Some(format!("{name}={value}"))
        });
        given.collect::<Vec<_>>().join("&")
    }
}

impl Action {
    fn take(self, to: &str, which: &Which) -> anyhow::Result<ExitCode> {
        if !which.ids.is_empty() {
            return self.take_each(to, &which.ids);
        }
        let mut query = which.filter.query();
        if which.all {
            query = format!("{query}&all=true");
        }
        if query.is_empty() {
            bail!(
                "that would be every dead letter; name some by their ids, choose with --backend, \
                 --type or --older, or say --all"
            );
        }
        let done = self.ask(to, None, &query)??;
        println!("{}", self.said(done));
        Ok(ExitCode::SUCCESS)
    }

    /// Each by itself, so that one that is not there does not keep the others.
    fn take_each(self, to: &str, ids: &[u64]) -> anyhow::Result<ExitCode> {
        let (mut done, mut code) = (0, ExitCode::SUCCESS);
        for id in ids {
            match self.ask(to, Some(*id), "")? {
                Ok(count) => done += count,
                Err(error) => {
                    eprintln!("backhaul: {error:#}");
                    code = ExitCode::FAILURE;
                }
            }
        }
        println!("{}", self.said(done));
        Ok(code)
    }

    /// Asks the host; the inner result is its answer: how many it was done with.
    fn ask(self, to: &str, id: Option<u64>, query: &str) -> anyhow::Result<anyhow::Result<u64>> {
        let one = id.map(|id| format!("/{id}")).unwrap_or_default();
        let end = match self {
            Action::Retry => "/retry",
            Action::Drop => "",
        };
        let url = client::url(to, &format!("/api/dead{one}{end}?{query}"))?;
        let response = match self {
            Action::Retry => client::agent().post(&url).send_empty(),
            Action::Drop => client::agent().delete(&url).call(),
        };
        let answer = client::answer(response.with_context(|| client::no_answer(&url))?);
        Ok(answer.and_then(|answer| self.count(&answer)))
    }

    fn count(self, answer: &Value) -> anyhow::Result<u64> {
        let count = match self {
            Action::Retry => &answer["retried"],
            Action::Drop => &answer["dropped"],
        };
        count
            .as_u64()
            .with_context(|| format!("the answer does not say how many: {answer}"))
    }

    fn said(self, count: u64) -> String {
        let letters = match count {
            1 => "1 dead letter".to_owned(),
            count => format!("{count} dead letters"),
        };
        match self {
            Action::Retry => format!("{letters} put back, to be tried again"),
            Action::Drop => format!("{letters} dropped"),
        }
    }
}
