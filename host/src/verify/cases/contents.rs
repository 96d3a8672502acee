//! Whether an event arrives as it was.

use super::{Context, Repeats, Verdict, counted};
use crate::event::Event;
use crate::verify::events::noise;

/// The data that are called large, in bytes.
const LARGE: usize = 1 << 20;

pub(super) async fn attributes(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let events = context.events();
    let odd = "Zoë says \"hi\" to 日本 🦀, 100 %, back\\slash, a,b;c=d & <e> ";
    let event = |number: usize| events.builder(number).data("{}");
    let mut builders = vec![
        Event::builder(context.event_type.to_owned())
            .id(format!("{}-bare", context.run))
            .source(events.source().to_owned())
            .time("2001-02-03T04:05:06Z".parse().expect("a time")),
        event(1)
            .time("2001-02-03T04:05:06.123456789Z".parse().expect("a time"))
            .attribute("dataschema", "https://example.com/schema?v=1#part")
            .attribute(
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            .attribute("tracestate", "a=1,b=2")
            .attribute("sequence", "0001")
            .attribute("a", "1")
            .attribute("0x9", "a name that begins with a digit")
            .attribute("anameofanextensionwithmorethantwentyletters", "true"),
        event(2).subject(odd).attribute("odd", odd),
        event(3).id(format!("{}-{odd}", context.run)),
        event(4).attribute("long", "0123456789abcdef".repeat(256)),
        event(5).content_type("application/json; charset=utf-8"),
        event(6).time("1969-12-31T23:59:59.5Z".parse().expect("a time")),
    ];
    builders.push((0..20).fold(event(7), |builder, n| {
        builder.attribute(format!("extension{n}"), format!("value {n}"))
    }));
    let sent = builders
        .into_iter()
        .map(|builder| builder.build().expect("a valid event"));
    let sent: Vec<Event> = sent.collect();
    context.publish(&backend, &sent).await?;
    context.judge(&sent, Repeats::Wrong)?;
    Ok(format!(
        "{}: none but the required, non-ASCII, 20 extensions, 4,096 characters, nanoseconds",
        counted(sent.len(), "event", "events")
    ))
}

pub(super) async fn data(context: &Context<'_>) -> Verdict {
    let backend = context.start().await?;
    let events = context.events();
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = large(context);
    let data: Vec<(&str, Vec<u8>)> = vec![
        ("application/octet-stream", Vec::new()),
        ("text/plain", Vec::new()),
        ("application/octet-stream", every_byte),
        ("application/octet-stream", vec![0]),
        (
            "application/json",
            r#"{"b":1.50,"a":[12345678901234567890,"é\u00e9"]}"#.into(),
        ),
        ("application/json", "\"text\"".into()),
        ("application/json", "{\"cut\":".into()),
        ("application/cbor", vec![0xa1, 0x61, 0x61, 0x01]),
        (
            "text/plain; charset=utf-8",
            "Zoë 🦀\r\n\ttwo lines\0\u{1}".into(),
        ),
        (
            "text/plain; charset=iso-8859-1",
            vec![b'Z', b'o', 0xeb, 0xff],
        ),
        ("application/xml", "<a b='c'>&amp;</a>".into()),
        ("application/octet-stream", noise(large).into()),
    ];
    let sent = data
        .into_iter()
        .enumerate()
        .map(|(number, (content_type, data))| {
            let builder = events.builder(number).content_type(content_type.to_owned());
            builder.data(data).build().expect("a valid event")
        });
    let sent: Vec<Event> = sent.collect();
    context.publish(&backend, &sent).await?;
    context.judge(&sent, Repeats::Wrong)?;
    Ok(format!(
        "{}: none, every byte, JSON, text in two encodings, {} at once",
        counted(sent.len(), "event", "events"),
        counted(large, "byte", "bytes"),
    ))
}

/// How much is large for this server: encoded, and with its attributes, it has to be
/// one that is taken.
pub(super) fn large(context: &Context<'_>) -> usize {
    match context.max_event() {
        Some(max) if max < (LARGE + LARGE / 2) as u64 => max as usize / 2,
        _ => LARGE,
    }
}
