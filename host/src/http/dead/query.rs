//! Which dead letters a request is about: the parameters of its query.

use axum::http::StatusCode;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::dead_letters::DeadFilter;
use crate::http::problem::Problem;

/// How many letters there are on a page unless the request says so, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// How many letters can be named by their ids; each letter that is kept is
/// compared with all of them.
const MAX_IDS: usize = 1000;

/// One page of those that fit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) filter: DeadFilter,
    pub(super) after: u64,
    pub(super) limit: usize,
}

/// Reads the query of a request for a list.
pub(super) fn listing(query: &str, now: Timestamp) -> Result<Listing, Problem> {
    let mut parameters = Parameters::parse(query)?;
    let filter = parameters.take_filter(now)?;
    let after = parameters.take("after", "the id of a dead letter", |text| text.parse().ok())?;
    let limit = parameters.take("limit", "a number from 1 to 1000", |text| {
        let limit = text.parse().ok()?;
        (1..=MAX_LIMIT).contains(&limit).then_some(limit)
    })?;
    parameters.finish()?;
    Ok(Listing {
        filter,
        after: after.unwrap_or(0),
        limit: limit.unwrap_or(DEFAULT_LIMIT),
    })
}

/// Reads the query of a request that changes what fits. All are only meant if it
/// says so.
pub(super) fn some_or_all(query: &str, now: Timestamp) -> Result<DeadFilter, Problem> {
    let mut parameters = Parameters::parse(query)?;
    let is_any = parameters.found.is_empty();
    let filter = parameters.take_filter(now)?;
    let all = parameters.take("all", "`true`", |text| (text == "true").then_some(()))?;
    parameters.finish()?;
    match all {
        None if is_any => Err(bad(
            "that would be every dead letter; say which with `backend`, `type`, `older` or `id`, \
             or add `all=true`"
                .to_owned(),
        )),
        _ => Ok(filter),
    }
}

/// The parameters of a query, each taken out by who knows it.
struct Parameters {
    found: Vec<(String, String)>,
    /// The names of those that were asked for.
    known: Vec<&'static str>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Parameters, Problem> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let found = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        Ok(Parameters {
            found: found.collect::<Result<_, Problem>>()?,
            known: Vec::new(),
        })
    }

    fn take_filter(&mut self, now: Timestamp) -> Result<DeadFilter, Problem> {
        let backend = self.take("backend", "the name of a backend", |text| {
            (!text.is_empty()).then(|| text.to_owned())
        })?;
        let pattern = "an event type such as `after:signup`, `after:*` or `*`";
        let event_type = self.take("type", pattern, |text| text.parse().ok())?;
        let before = self.take("older", "a time such as `30m` or `1h`", |text| {
            let age = humantime::parse_duration(text).ok()?;
            // Nothing is older than the first moment that can be written.
            Some(now.checked_sub(age).unwrap_or(Timestamp::MIN))
        })?;
        let ids = self.take_all("id", "the id of a dead letter", |text| text.parse().ok())?;
        if ids.len() > MAX_IDS {
            let count = ids.len();
            return Err(bad(format!(
                "`id` is there {count} times; name at most {MAX_IDS} dead letters at once"
            )));
        }
        Ok(DeadFilter {
            ids,
            backend,
            event_type,
            before,
        })
    }

    /// The value of a parameter that can be there once.
    fn take<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let mut values = self.take_all(name, expected, parse)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(bad(format!("`{name}` is there twice"))),
        }
    }

    fn take_all<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Problem> {
        self.known.push(name);
        let taken = self.found.extract_if(.., |(found, _)| found == name);
        let parsed = taken.map(|(_, value)| {
            parse(&value).ok_or_else(|| bad(format!("`{name}` is not {expected}: {value:?}")))
        });
        parsed.collect()
    }

    /// Refuses what nobody has taken.
    fn finish(self) -> Result<(), Problem> {
        match self.found.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad(format!(
                "there is no parameter {name:?} here; there are {}",
                self.known.join(", ")
            ))),
        }
    }
}

/// A name or value as it is encoded in a query.
fn decoded(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(bad(format!("the query has {text:?}, which is not UTF-8"))),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        let problem = result.unwrap_err();
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        problem.to_string()
    }

    #[test]
    fn a_query_without_parameters_is_the_first_page_of_all() {
        for query in ["", "&"] {
            let Listing {
                filter,
                after,
                limit,
            } = listing(query, now()).unwrap();
            assert_eq!((after, limit), (0, 100));
            assert!(filter.ids.is_empty() && filter.backend.is_none());
            assert!(filter.event_type.is_none() && filter.before.is_none());
        }
    }

    #[test]
    fn every_parameter_is_read_and_decoded() {
        let query =
            "backend=redis-streams&type=after%3A%2a+x&older=1h+30m&id=7&id=9&after=3&limit=1000";
        let Listing {
            filter,
            after,
            limit,
        } = listing(query, now()).unwrap();
        assert_eq!((after, limit), (3, 1000));
        assert_eq!(filter.ids, [7, 9]);
        assert_eq!(filter.backend.as_deref(), Some("redis-streams"));
        assert_eq!(filter.event_type.unwrap().as_str(), "after:* x");
        assert_eq!(filter.before, Some("2026-01-31T10:30:00Z".parse().unwrap()));
    }

    #[test]
    fn nothing_is_older_than_time_itself() {
        let filter = listing("older=100000years", now()).unwrap().filter;
        assert_eq!(filter.before, Some(Timestamp::MIN));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, part) in [
            ("colour=red", "no parameter \"colour\""),
            ("limit=5&x", "no parameter \"x\""),
            ("all=true", "no parameter \"all\""),
            ("limit=0", "`limit` is not a number from 1 to 1000: \"0\""),
            ("limit=1001", "`limit`"),
            ("limit", "`limit`"),
            ("after=-1", "`after`"),
            ("id=1&id=x", "`id` is not the id of a dead letter: \"x\""),
            ("id=1,2", "`id`"),
            ("backend=", "`backend`"),
            ("type=", "`type`"),
            ("older=soon", "`older` is not a time"),
            ("older=1h&older=2h", "`older` is there twice"),
            ("type=%ff", "not UTF-8"),
        ] {
            let text = refusal(listing(query, now()));
            assert!(text.contains(part), "{query}: {text}");
        }
        let many = "id=1&".repeat(MAX_IDS + 1);
        assert!(refusal(listing(&many, now())).contains("at most 1000"));
    }

    #[test]
    fn all_are_only_meant_if_the_request_says_so() {
        assert!(refusal(some_or_all("", now())).contains("all=true"));
        assert!(refusal(some_or_all("all=yes", now())).contains("`all` is not `true`"));
        assert!(refusal(some_or_all("limit=5", now())).contains("no parameter \"limit\""));
        assert!(some_or_all("all=true", now()).unwrap().ids.is_empty());
        let filter = some_or_all("backend=a", now()).unwrap();
        assert_eq!(filter.backend.as_deref(), Some("a"));
        let filter = some_or_all("id=4&all=true", now()).unwrap();
        assert_eq!(filter.ids, [4]);
    }
}
