//! A cluster that does what a real one does only now and then, for tests: it answers
//! as it is told to, with messages of another codec.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, InitProducerIdResponse, MetadataResponse, ProduceRequest, ProduceResponse,
    ProducerId, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use kafka_protocol::records::RecordBatchDecoder;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A record batch as it came to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) broker: usize,
    pub(crate) partition: i32,
    pub(crate) producer_id: i64,
    pub(crate) sequence: i32,
    pub(crate) ids: Vec<String>,
}

/// What is said of a record batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) error: i16,
    /// Records that are to blame.
    pub(crate) records: Vec<i32>,
    /// From now on these brokers lead the partitions.
    pub(crate) leaders: Option<Vec<usize>>,
}

impl Said {
    pub(crate) fn error(error: i16) -> Self {
        Self {
            error,
            ..Self::default()
        }
    }
}

type Script = Box<dyn FnMut(&Arrived) -> Said + Send>;

struct State {
    ports: Vec<u16>,
    /// Of each partition of the one topic, `events`.
    leaders: Vec<usize>,
    producers: i64,
    /// What is said to who asks for a producer's id.
    producer_error: i16,
    /// What is said to who asks about the topic.
    topic_error: i16,
    arrived: Vec<Arrived>,
    script: Script,
}

pub(crate) struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    /// Two brokers, 0 and 1; those in `leaders` lead the partitions.
    pub(crate) fn start(
        leaders: &[usize],
        script: impl FnMut(&Arrived) -> Said + Send + 'static,
    ) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let cluster = Self(Arc::new(Mutex::new(State {
            ports: listeners.iter().map(port).collect(),
            leaders: leaders.to_owned(),
            producers: 0,
            producer_error: 0,
            topic_error: 0,
            arrived: Vec::new(),
            script: Box::new(script),
        })));
        for (broker, listener) in listeners.into_iter().enumerate() {
            let state = cluster.0.clone();
            // It ends with the tests.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || serve(broker, stream, &state));
                }
            });
        }
        cluster
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state
            .ports
            .iter()
            .map(|p| format!("127.0.0.1:{p}"))
            .collect()
    }

    pub(crate) fn refuse_producers(&self, error: i16) {
        self.0.lock().unwrap().producer_error = error;
    }

    pub(crate) fn refuse_topic(&self, error: i16) {
        self.0.lock().unwrap().topic_error = error;
    }

    /// What has come since this was asked last.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.0.lock().unwrap().arrived)
    }
}

/// Answers until the client goes away.
fn serve(broker: usize, mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let (key, version) = (number(0), number(2));
        let head = 10 + usize::try_from(number(8)).unwrap();
        let body = Bytes::copy_from_slice(&request[head..]);
        let mut out = BytesMut::from(&request[4..8]);
        let state = state.lock().unwrap();
        match key {
            0 => produce(broker, state, body, version).encode(&mut out, version),
            3 => metadata(&state, &body).encode(&mut out, version),
            18 => versions().encode(&mut out, version),
            22 => new_producer(state).encode(&mut out, version),
            _ => panic!("the request {key} in version {version}"),
        }
        .unwrap();
        stream.write_all(&u32::try_from(out.len()).unwrap().to_be_bytes())?;
        stream.write_all(&out)?;
    }
}

fn versions() -> ApiVersionsResponse {
    let known = [0, 3, 18, 22].map(|key| {
        ApiVersion::default()
            .with_api_key(key)
            .with_max_version(if key == 0 { 13 } else { 5 })
    });
    ApiVersionsResponse::default().with_api_keys(known.to_vec())
}

fn new_producer(mut state: MutexGuard<'_, State>) -> InitProducerIdResponse {
    state.producers += 1;
    InitProducerIdResponse::default()
        .with_error_code(state.producer_error)
        .with_producer_id(ProducerId(state.producers))
}

fn metadata(state: &State, body: &[u8]) -> MetadataResponse {
    let broker = |(id, port): (usize, &u16)| {
        MetadataResponseBroker::default()
            .with_node_id((id as i32).into())
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port((*port).into())
    };
    let partition = |(number, leader): (usize, &usize)| {
        MetadataResponsePartition::default()
            .with_partition_index(number as i32)
            .with_leader_id((*leader as i32).into())
            .with_replica_nodes(vec![0.into(), 1.into()])
            .with_isr_nodes(vec![0.into()])
    };
    let topic = MetadataResponseTopic::default()
        .with_error_code(state.topic_error)
        .with_name(Some(TopicName(StrBytes::from_static_str("events"))))
        .with_partitions(state.leaders.iter().enumerate().map(partition).collect());
    // It is the only one there is, so it was asked for if any was.
    let was_asked = !body.starts_with(&[0; 4]);
    MetadataResponse::default()
        .with_brokers(state.ports.iter().enumerate().map(broker).collect())
        .with_topics(was_asked.then_some(topic).into_iter().collect())
}

fn produce(
    broker: usize,
    mut state: MutexGuard<'_, State>,
    mut body: Bytes,
    version: i16,
) -> ProduceResponse {
    let request = ProduceRequest::decode(&mut body, version).unwrap();
    let mut topics = Vec::new();
    for topic in request.topic_data {
        let mut partitions = Vec::new();
        for partition in topic.partition_data {
            let mut records = partition.records.unwrap();
            let records = RecordBatchDecoder::decode_all(&mut records).unwrap();
            let records: Vec<_> = records.into_iter().flat_map(|set| set.records).collect();
            let id = |record: &kafka_protocol::records::Record| {
                let id = &record.headers[&StrBytes::from_static_str("ce_id")];
                String::from_utf8(id.as_ref().unwrap().to_vec()).unwrap()
            };
            let arrived = Arrived {
                broker,
                partition: partition.index,
                producer_id: records[0].producer_id,
                sequence: records[0].sequence,
                ids: records.iter().map(id).collect(),
            };
            let said = (state.script)(&arrived);
            state.arrived.push(arrived);
            if let Some(leaders) = said.leaders {
                state.leaders = leaders;
            }
            let blamed = |number: &i32| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(*number)
                    .with_batch_index_error_message(Some(StrBytes::from_static_str("no key")))
            };
            let answer = PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_error_code(said.error)
                .with_record_errors(said.records.iter().map(blamed).collect());
            partitions.push(answer);
        }
        let answer = TopicProduceResponse::default()
            .with_name(topic.name)
            .with_partition_responses(partitions);
        topics.push(answer);
    }
    ProduceResponse::default().with_responses(topics)
}
