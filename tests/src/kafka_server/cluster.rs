//! Two brokers that know each other, and who of them leads what.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::KafkaServer;
use super::properties::Properties;

/// A partition, as the cluster sees it.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// The broker that takes its records; `-1` is none.
    pub leader: i32,
    /// How many brokers have all of it.
    pub in_sync: usize,
}

impl KafkaServer {
    /// Two brokers of one's own. The first, number 1, is the controller, too, and stays;
    /// the second, number 2, can be stopped and started. Partitions go back to the
    /// leader they were created with within seconds of its return.
    pub fn pair() -> Option<(KafkaServer, KafkaServer)> {
        let first = Properties::new()?;
        let second = first.second()?;
        Some((KafkaServer::of(first), KafkaServer::of(second)))
    }

    /// What this broker knows of the partitions of a topic, by number.
    pub fn cluster_view(&self, topic: &str) -> std::io::Result<Vec<Partition>> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&metadata_request(topic))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        Ok(Answer(&answer).partitions())
    }
}

/// `Metadata`, version 4, for one topic.
fn metadata_request(topic: &str) -> Vec<u8> {
    let mut request = Vec::new();
    for number in [3_u16, 4, 0, 1] {
        // Which request, its version, and the answer's number in two parts.
        request.extend(number.to_be_bytes());
    }
    request.extend((-1_i16).to_be_bytes()); // no client id
    request.extend(1_u32.to_be_bytes());
    request.extend(
        u16::try_from(topic.len())
            .expect("a short name")
            .to_be_bytes(),
    );
    request.extend(topic.as_bytes());
    request.push(0); // does not create it
    let length = u32::try_from(request.len()).expect("a short request");
    [&length.to_be_bytes(), &request[..]].concat()
}

/// What is left of the answer to read.
struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    fn partitions(mut self) -> Vec<Partition> {
        self.bytes(8); // its number, and how long to wait
        for _ in 0..self.number() {
            self.number(); // the broker's number
            self.text();
            self.number();
            self.text();
        }
        self.text(); // the cluster
        self.number(); // its controller
        let topics = self.number();
        assert_eq!(topics, 1, "topics");
        self.bytes(2); // an error
        self.text();
        self.bytes(1);
        let count = self.number();
        let mut partitions: Vec<(i32, Partition)> = (0..count).map(|_| self.partition()).collect();
        partitions.sort_by_key(|(index, _)| *index);
        partitions
            .into_iter()
            .map(|(_, partition)| partition)
            .collect()
    }

    fn partition(&mut self) -> (i32, Partition) {
        self.bytes(2); // an error: the leader says it as well
        let (index, leader) = (self.number(), self.number());
        self.numbers(); // those that should have it
        let in_sync = self.numbers();
        (index, Partition { leader, in_sync })
    }

    fn bytes(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().expect("four bytes"))
    }

    /// How many numbers there were.
    fn numbers(&mut self) -> usize {
        let count = usize::try_from(self.number()).expect("a list");
        self.bytes(4 * count);
        count
    }

    /// Passes over a text, or none.
    fn text(&mut self) {
        let length = i16::from_be_bytes(self.bytes(2).try_into().expect("two bytes"));
        self.bytes(usize::try_from(length).unwrap_or(0));
    }
}
