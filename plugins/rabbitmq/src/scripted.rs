//! Servers for the unit tests, each on a real socket and following a script.

use crate::frames::Frames;
use crate::session::CHANNEL;
use crate::settings::Settings;
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange};
use amq_protocol::types::FieldTable;
use std::io::Read;
use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a client that published is known by.
pub(crate) struct Published {
    pub(crate) publish: basic::Publish,
    pub(crate) header: AMQPContentHeader,
    pub(crate) data: Vec<u8>,
}

/// A server that lets one client in and then does what the script says; with the
/// settings to reach it.
pub(crate) fn server(
    script: impl FnOnce(&mut Frames) + Send + 'static,
) -> (Settings, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.read_exact(&mut [0; 8]).expect("the protocol header");
        let mut frames = Frames::new(stream);
        let_in(&mut frames);
        script(&mut frames);
    });
    (Settings::for_url(&format!("amqp://{address}")), server)
}

fn let_in(frames: &mut Frames) {
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: FieldTable::default(),
        mechanisms: "AMQPLAIN PLAIN".into(),
        locales: "en_US".into(),
    };
    say_at(
        frames,
        0,
        AMQPClass::Connection(connection::AMQPMethod::Start(start)),
    );
    hear(frames);
    let tune = connection::Tune {
        channel_max: 2047,
        frame_max: 4096,
        heartbeat: 60,
    };
    say_at(
        frames,
        0,
        AMQPClass::Connection(connection::AMQPMethod::Tune(tune)),
    );
    hear(frames);
    hear(frames);
    let open_ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
    say_at(frames, 0, AMQPClass::Connection(open_ok));
    for _ in ["channel.open", "exchange.declare", "confirm.select"] {
        hear(frames);
    }
    say(
        frames,
        AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {})),
    );
    say(
        frames,
        AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {})),
    );
    say(
        frames,
        AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})),
    );
}

/// The next so many messages of the client.
pub(crate) fn messages(frames: &mut Frames, count: usize) -> Vec<Published> {
    (0..count).map(|_| message(frames)).collect()
}

fn message(frames: &mut Frames) -> Published {
    let AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))) = hear(frames)
    else {
        panic!("basic.publish was due");
    };
    let AMQPFrame::Header(_, _, header) = hear(frames) else {
        panic!("the header was due");
    };
    let mut data = Vec::new();
    while (data.len() as u64) < header.body_size {
        let AMQPFrame::Body(_, part) = hear(frames) else {
            panic!("the body was due");
        };
        data.extend(part);
    }
    Published {
        publish,
        header: *header,
        data,
    }
}

pub(crate) fn ack(frames: &mut Frames, delivery_tag: u64, multiple: bool) {
    let ack = basic::Ack {
        delivery_tag,
        multiple,
    };
    say(frames, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)));
}

pub(crate) fn nack(frames: &mut Frames, delivery_tag: u64) {
    let nack = basic::Nack {
        delivery_tag,
        multiple: false,
        requeue: false,
    };
    say(frames, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)));
}

/// Sends a message back because no queue gets it.
pub(crate) fn send_back(frames: &mut Frames, message: &Published) {
    let returned = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: message.publish.exchange.clone(),
        routing_key: message.publish.routing_key.clone(),
    };
    say(
        frames,
        AMQPClass::Basic(basic::AMQPMethod::Return(returned)),
    );
    let header = Box::new(message.header.clone());
    frames.put(&AMQPFrame::Header(CHANNEL, header.class_id, header));
    for part in message.data.chunks(1000) {
        frames.put(&AMQPFrame::Body(CHANNEL, part.to_vec()));
    }
    frames.send().expect("the client listens");
}

pub(crate) fn say(frames: &mut Frames, method: AMQPClass) {
    say_at(frames, CHANNEL, method);
}

pub(crate) fn say_at(frames: &mut Frames, channel: u16, method: AMQPClass) {
    frames.put(&AMQPFrame::Method(channel, method));
    frames.send().expect("the client listens");
}

pub(crate) fn hear(frames: &mut Frames) -> AMQPFrame {
    let deadline = Instant::now() + Duration::from_secs(10);
    frames.receive(deadline).expect("the client goes on")
}
