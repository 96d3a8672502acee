//! moto, a server that speaks Amazon's SQS and SNS, and what its queues hold. It keeps
//! everything in memory and checks no signatures.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::free_port;
use crate::{components, skip, wait_for};

/// The region of every queue and topic.
pub const REGION: &str = "eu-west-1";

/// The account of every queue and topic.
const ACCOUNT: &str = "123456789012";

/// It ends with the pipe it reads from: one that all tests of a program share is
/// dropped by nobody.
///
/// How many messages a queue has is not counted, but known: moto counts them three times
/// for each message that comes, by looking at every one that is there.
const PROGRAM: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
from moto.sqs.models import Queue
Queue.approximate_number_of_messages = property(lambda queue: len(queue._messages))
Queue.approximate_number_of_messages_delayed = 0
Queue.approximate_number_of_messages_not_visible = 0
main(['-H', '127.0.0.1', '-p', sys.argv[1]])
";

/// A moto server on a free port.
pub struct MotoServer {
    port: u16,
    /// Holds the pipe it ends with.
    process: Child,
}

/// A message of a queue.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its body.
    pub body: String,
    /// Its body as JSON; null if it is none.
    pub json: Value,
    /// Its message attributes, each with `StringValue` and `DataType`.
    pub attributes: Value,
    /// `MessageGroupId`, `MessageDeduplicationId` and others that the service gives.
    pub system: Value,
}

impl MotoServer {
    /// The server of this program, started by whoever asks first; `None`, and the
    /// test is skipped, if it is not installed.
    pub fn shared() -> Option<&'static MotoServer> {
        static SERVER: OnceLock<Option<MotoServer>> = OnceLock::new();
        or_skip(SERVER.get_or_init(MotoServer::launch).as_ref())
    }

    /// A server of one's own, for a test that keeps it busy.
    pub fn start() -> Option<MotoServer> {
        or_skip(MotoServer::launch())
    }

    fn launch() -> Option<MotoServer> {
        let python: PathBuf = components::target().join("servers/moto/bin/python");
        if !python.exists() {
            return None;
        }
        let port = free_port();
        let mut process = Command::new(python)
            .args(["-c", PROGRAM, &port.to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("moto starts");
        let stderr = BufReader::new(process.stderr.take().expect("its standard error"));
        // It writes a line for each request.
        std::thread::spawn(move || for _ in stderr.lines() {});
        let server = MotoServer { port, process };
        wait_for("moto to answer", || {
            let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5)));
            let agent = ureq::Agent::new_with_config(config.proxy(None).build());
            agent.get(server.origin()).call().ok()
        });
        Some(server)
    }

    /// `http://HOST:PORT`
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a queue; returns its URL.
    pub fn create_queue(&self, name: &str, attributes: &Value) -> String {
        let request = json!({ "QueueName": name, "Attributes": attributes });
        let answer = self.sqs("CreateQueue", &request);
        answer["QueueUrl"].as_str().expect("its URL").to_owned()
    }

    /// Makes a topic, with these further attributes of the call; returns its ARN.
    pub fn create_topic(&self, name: &str, attributes: &[(&str, &str)]) -> String {
        let mut form = vec![("Action", "CreateTopic"), ("Name", name)];
        form.extend(attributes);
        let answer = self.sns(&form);
        assert!(answer.contains("CreateTopicResult"), "{answer}");
        format!("arn:aws:sns:{REGION}:{ACCOUNT}:{name}")
    }

    /// Has what is published to the topic sent to the queue called `queue`, as it is
    /// or wrapped in a notification.
    pub fn subscribe(&self, topic: &str, queue: &str, raw: bool) {
        let queue = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}");
        let mut form = vec![
            ("Action", "Subscribe"),
            ("TopicArn", topic),
            ("Protocol", "sqs"),
            ("Endpoint", &queue),
        ];
        if raw {
            form.extend([
                ("Attributes.entry.1.key", "RawMessageDelivery"),
                ("Attributes.entry.1.value", "true"),
            ]);
        }
        let answer = self.sns(&form);
        assert!(answer.contains("SubscriptionArn"), "{answer}");
    }

    /// How many messages wait in the queue.
    pub fn len(&self, url: &str) -> usize {
        let request = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let answer = self.sqs("GetQueueAttributes", &request);
        let count = &answer["Attributes"]["ApproximateNumberOfMessages"];
        let count = count.as_str().expect("a number");
        count.parse().expect("a number")
    }

    /// Waits until so many messages are in the queue.
    pub fn wait_for(&self, url: &str, count: usize) {
        let mut last = 0;
        while last < count {
            // Patience is for the next message, however many there are.
            last = wait_for(
                &format!("{count} messages in {url}, there are {last}"),
                || Some(self.len(url)).filter(|len| *len > last),
            );
        }
    }

    /// Takes what is in the queue out of it, in the order it gives.
    pub fn take(&self, url: &str) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            let request = json!({
                "QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0,
                "AttributeNames": ["All"], "MessageAttributeNames": ["All"],
            });
            let answer = self.sqs("ReceiveMessage", &request);
            let received = answer["Messages"].as_array().cloned().unwrap_or_default();
            if received.is_empty() {
                return messages;
            }
            let entries: Vec<Value> = received.iter().enumerate().map(|(number, message)| {
                json!({ "Id": number.to_string(), "ReceiptHandle": message["ReceiptHandle"] })
            }).collect();
            let request = json!({ "QueueUrl": url, "Entries": entries });
            self.sqs("DeleteMessageBatch", &request);
            messages.extend(received.into_iter().map(Message::of));
        }
    }

    fn sqs(&self, action: &str, request: &Value) -> Value {
        let target = format!("AmazonSQS.{action}");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", &target),
        ];
        let answer = self.post("sqs", &headers, &request.to_string());
        serde_json::from_str(&answer).unwrap_or_default()
    }

    fn sns(&self, form: &[(&str, &str)]) -> String {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        // What the harness sends needs no escaping but for this.
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", value.replace(':', "%3A"));
        let pairs: Vec<String> = form.iter().map(pair).collect();
        self.post("sns", &headers, &pairs.join("&"))
    }

    fn post(&self, service: &str, headers: &[(&str, &str)], body: &str) -> String {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30)));
        let agent = ureq::Agent::new_with_config(config.proxy(None).build());
        // It takes the region from here, and checks nothing.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        let mut request = agent
            .post(self.origin())
            .header("authorization", authorization);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).expect("moto answers");
        let limited = answer.body_mut().with_config().limit(64 << 20);
        limited.read_to_string().expect("text")
    }
}

impl Drop for MotoServer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Without a server the test is skipped.
fn or_skip<S>(server: Option<S>) -> Option<S> {
    if server.is_none() {
        skip::skip_because("moto not found (run cargo xtask servers)");
    }
    server
}

impl Message {
    fn of(message: Value) -> Message {
        let body = message["Body"].as_str().expect("a body").to_owned();
        Message {
            json: serde_json::from_str(&body).unwrap_or_default(),
            body,
            attributes: message["MessageAttributes"].clone(),
            system: message["Attributes"].clone(),
        }
    }
}
