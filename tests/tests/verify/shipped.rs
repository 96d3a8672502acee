//! Every shipped backend passes on its real server.

use backhaul_tests::kafka_server::KafkaServer;
use backhaul_tests::moto_server::{MotoServer, REGION};
use backhaul_tests::nats_server::NatsServer;
use backhaul_tests::process::free_port;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use backhaul_tests::redis_server::RedisServer;
use backhaul_tests::wait_for;
use serde_json::json;

use super::Subject;

#[test]
fn redis_streams() {
    // Small enough for an event to be too large.
    let Some(server) = RedisServer::with(&["--proto-max-bulk-len", "2097152"]) else {
        return;
    };
    let manifest = format!(
        "[grants]\ntcp = [\"{}\"]\nenv = {{ REDIS_URL = \"{}\" }}\n",
        server.address(),
        server.url()
    );
    let run = Subject::shipped("redis-streams", &manifest).verify(&[]);
    run.assert_passed(&["real-restart", "repeats"]);
}

#[test]
fn redis_streams_when_redis_is_really_started_again() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let manifest = format!(
        "[grants]\ntcp = [\"{}\"]\nenv = {{ REDIS_URL = \"{}\" }}\n",
        server.address(),
        server.url()
    );
    let subject = Subject::shipped("redis-streams", &manifest);
    let folder = subject.workspace.path().to_owned();
    let (asked, done) = (folder.join("asked"), folder.join("done"));
    let command = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        asked.display(),
        done.display()
    );
    let run = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for("the command to be run", || asked.exists().then_some(()));
            server.stop();
            server.start_again();
            std::fs::write(done, "").expect("a file");
        });
        subject.verify(&["--only", "real-restart", "--restart-command", &command])
    });
    run.assert_passed(&[]);
}

#[test]
fn a_restart_that_fails_is_no_verdict() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let manifest = format!(
        "[grants]\ntcp = [\"{}\"]\nenv = {{ REDIS_URL = \"{}\" }}\n",
        server.address(),
        server.url()
    );
    let subject = Subject::shipped("redis-streams", &manifest);
    let run = subject.verify(&["--only", "real-restart", "--restart-command", "exit 4"]);
    assert_eq!(run.code(), Some(2), "{}", run.text());
    let (outcome, detail) = run.outcome("real-restart");
    assert_eq!((outcome, detail), ("undecided", "exit 4: exit status: 4"));
}

#[test]
fn rabbitmq() {
    let Some(server) = RabbitMqServer::with("max_message_size = 2097152") else {
        return;
    };
    let address = server.address();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\nenv = {{ RABBITMQ_URL = \"amqp://guest:guest@{address}\" }}\n"
    );
    let subject = Subject::shipped("rabbitmq", &manifest);
    subject.profile("max_event = \"2MiB\"\n");
    subject
        .verify(&[])
        .assert_passed(&["real-restart", "repeats"]);
}

#[test]
fn nats_jetstream() {
    let configuration = "jetstream {}\nmax_payload = 2097152\n\
         authorization { user = \"ada\", password = \"secret word\" }";
    let login = json!({ "user": "ada", "pass": "secret word" });
    let Some(server) = NatsServer::with(configuration, login) else {
        return;
    };
    server.create_stream("events", &["events.>"], &json!({}));
    let address = server.address();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nNATS_URL = \"nats://{address}\"\n\
         NATS_USER = \"ada\"\nNATS_PASSWORD = \"secret word\"\n"
    );
    let run = Subject::shipped("nats-jetstream", &manifest).verify(&[]);
    run.assert_passed(&["real-restart"]);
}

#[test]
fn kafka() {
    let Some(server) = KafkaServer::start() else {
        return;
    };
    server.create_topic("events", 3);
    let address = server.sasl_address();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nKAFKA_BROKERS = \"{address}\"\n\
         KAFKA_SASL = \"SCRAM-SHA-256\"\nKAFKA_USER = \"ada\"\nKAFKA_PASSWORD = \"right\"\n"
    );
    let subject = Subject::shipped("kafka", &manifest);
    // What the server of the tests takes.
    subject.profile("max_event = \"2000000\"\n");
    let run = subject.verify(&[]);
    run.assert_passed(&["refused-event", "real-restart", "repeats"]);
}

#[test]
fn webhook() {
    let origin = format!("http://127.0.0.1:{}", free_port());
    let manifest = format!(
        "[grants]\nhttp = [\"{origin}\"]\nenv = {{ WEBHOOK_URL = \"{origin}/events\" }}\n\
         [limits]\nbatch = 32\n"
    );
    let run = Subject::shipped("webhook", &manifest).verify(&[]);
    run.assert_passed(&["credentials", "real-restart", "repeats"]);
}

/// moto takes longer to give a message away the more of them a queue has.
const ON_MOTO: [&str; 2] = ["--memory-events", "4000"];

/// It takes any login, and what `sqs` refuses by itself is an event that is too large.
const ABSENT_ON_MOTO: [&str; 4] = ["refused-event", "credentials", "real-restart", "repeats"];

/// The variables of `sqs` and `sns` that say who sends and where. moto takes any login.
fn aws(server: &MotoServer) -> String {
    let origin = server.origin();
    format!(
        "[grants]\nhttp = [\"{origin}\"]\n[limits]\nbatch = 40\n[grants.env]\n\
         AWS_ENDPOINT_URL = \"{origin}\"\nAWS_REGION = \"{REGION}\"\n\
         AWS_ACCESS_KEY_ID = \"test\"\nAWS_SECRET_ACCESS_KEY = \"moto-takes-any\"\n"
    )
}

#[test]
fn sqs() {
    let Some(server) = MotoServer::start() else {
        return;
    };
    let queue = server.create_queue("verified", &json!({}));
    let manifest = format!("{}SQS_QUEUE_URL = \"{queue}\"\n", aws(&server));
    let subject = Subject::shipped("sqs", &manifest);
    subject.profile("[credentials]\n");
    let run = subject.verify(&ON_MOTO);
    run.assert_passed(&ABSENT_ON_MOTO);
}

#[test]
fn sns() {
    let Some(server) = MotoServer::start() else {
        return;
    };
    let queue = server.create_queue("from-a-topic", &json!({}));
    let topic = server.create_topic("verified", &[]);
    server.subscribe(&topic, "from-a-topic", true);
    let manifest = format!("{}SNS_TOPIC_ARN = \"{topic}\"\n", aws(&server));
    let subject = Subject::shipped("sns", &manifest);
    subject.profile(&format!(
        "[credentials]\n[settings]\nSQS_QUEUE_URL = \"{queue}\"\n"
    ));
    let run = subject.verify(&ON_MOTO);
    run.assert_passed(&ABSENT_ON_MOTO);
}

#[test]
fn file() {
    let subject = Subject::shipped("file", "");
    let manifest = format!(
        "[grants]\nfiles = [{{ host = \"{}\", guest = \"/out\", write = true }}]\n",
        subject.workspace.path().join("data/out").display()
    );
    std::fs::write(subject.file.with_extension("toml"), manifest).expect("a manifest");
    subject.verify(&[]).assert_passed(&[
        "refused-event",
        "too-large",
        "credentials",
        "unreachable",
        "cut",
        "restart",
        "hang",
        "real-restart",
        "repeats",
        "instances",
    ]);
}
