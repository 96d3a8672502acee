//! The profiles of the shipped backends, as far as they follow from the name and
//! the manifest's variables.

use std::time::Duration;

use super::{Order, Profile, ReaderKind, Refused, Variables};

/// Events of this type are refused by the reader that is a server itself.
pub(in crate::verify) const REFUSED_TYPE: &str = "verify:refused";

/// The backends there is a reader for.
pub(super) const READERS: [&str; 8] = [
    "file",
    "kafka",
    "nats-jetstream",
    "rabbitmq",
    "redis-streams",
    "sns",
    "sqs",
    "webhook",
];

impl Profile {
    /// The profile of our backend of that name with these variables; the default,
    /// without a reader, if it is not one of ours.
    pub(super) fn shipped(name: &str, env: &Variables) -> Profile {
        let profile = Profile {
            reader: READERS
                .contains(&name)
                .then(|| ReaderKind::Shipped(name.to_owned())),
            ..Profile::default()
        };
        let variable = |name: &str| env.get(name).map(String::as_str);
        match name {
            "redis-streams" => Profile {
                wrong_credentials: variables(&[("REDIS_PASSWORD", WRONG)]),
                // The stream's name is made of an attribute that one event lacks.
                refused: Some(Refused {
                    env: variables(&[("REDIS_STREAM", "{ext.verifystream}")]),
                    lacks: variables(&[(
                        "verifystream",
                        variable("REDIS_STREAM").unwrap_or("backhaul:events"),
                    )]),
                    ..Refused::default()
                }),
                ..profile
            },
            "rabbitmq" => Profile {
                wrong_credentials: variables(&[("RABBITMQ_PASSWORD", WRONG)]),
                // AMQP's short strings have 255 bytes.
                refused: Some(Refused {
                    content_type: Some(format!("text/{}", "x".repeat(300))),
                    ..Refused::default()
                }),
                ..profile
            },
            "nats-jetstream" => Profile {
                wrong_credentials: match (variable("NATS_USER"), variable("NATS_TOKEN")) {
                    (Some(_), _) => variables(&[("NATS_PASSWORD", WRONG)]),
                    (None, Some(_)) => variables(&[("NATS_TOKEN", WRONG)]),
                    // A server that asks for nothing takes anything.
                    (None, None) => Variables::new(),
                },
                deduplicates: true,
                refused: Some(of_type("verify no subject")),
                ..profile
            },
            "webhook" => Profile {
                order: match variable("WEBHOOK_CONCURRENCY") {
                    None | Some("1") => Order::All,
                    Some(_) => Order::None,
                },
                // The reader is the server, and refuses these.
                refused: Some(of_type(REFUSED_TYPE)),
                ..profile
            },
            "file" => Profile {
                instances: false,
                ..profile
            },
            "kafka" => Profile {
                order: Order::Key,
                patience: Duration::from_secs(10),
                wrong_credentials: match variable("KAFKA_PASSWORD") {
                    Some(_) => variables(&[("KAFKA_PASSWORD", WRONG)]),
                    None => Variables::new(),
                },
                max_event: Some(1 << 20),
                ..profile
            },
            "sqs" | "sns" => {
                let (setting, most) = match name {
                    "sqs" => ("SQS_MAX_BYTES", 1 << 20),
                    _ => ("SNS_MAX_BYTES", 256 << 10),
                };
                let max = variable(setting)
                    .and_then(|max| max.parse().ok())
                    .unwrap_or(most);
                let fifo = env.iter().any(|(name, value)| {
                    (name.ends_with("_URL") || name.ends_with("_ARN")) && value.ends_with(".fifo")
                });
                Profile {
                    order: if fifo { Order::Key } else { Order::None },
                    repeats: !fifo,
                    deduplicates: fifo,
                    patience: Duration::from_secs(20),
                    wrong_credentials: variables(&[("AWS_SECRET_ACCESS_KEY", WRONG)]),
                    max_event: Some(max),
                    ..profile
                }
            }
            _ => profile,
        }
    }
}

/// A password that is none.
const WRONG: &str = "not-the-password";

fn variables(list: &[(&str, &str)]) -> Variables {
    let owned = list
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn of_type(event_type: &str) -> Refused {
    Refused {
        event_type: Some(event_type.to_owned()),
        ..Refused::default()
    }
}
