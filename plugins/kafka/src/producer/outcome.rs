//! What became of record batches, and what is done about it.

use super::{MOST_TRIES, Producer, pause};
use crate::doubt::{Chunk, Member};
use crate::produce::{Answer, Place};
use crate::settings::Settings;
use crate::verdict::{Verdict, verdict};
use crate::work::{Lane, Work};
use std::collections::HashMap;
use std::time::Instant;

impl Producer {
    pub(super) fn settle_all(
        &mut self,
        settings: &Settings,
        work: &mut Work<'_>,
        places: &[Place],
        answers: Vec<Answer>,
    ) {
        let mut answers: HashMap<Place, Answer> = answers
            .into_iter()
            .map(|answer| (answer.place.clone(), answer))
            .collect();
        for place in places {
            match answers.remove(place) {
                Some(answer) => self.settle(settings, work, place, answer),
                None => self.problem(work, place, "the broker did not say what became of it"),
            }
        }
    }

    /// Takes in what became of the record batch of a partition.
    fn settle(&mut self, settings: &Settings, work: &mut Work<'_>, place: &Place, answer: Answer) {
        let verdict = verdict(answer.error);
        if let Verdict::Again(text) = verdict {
            return self.problem(work, place, &format!("{text} ({})", answer.error));
        }
        let Some(chunk) = self.doubt.chunks.remove(place) else {
            return;
        };
        if verdict == Verdict::Stored {
            if self.identity == Some(chunk.identity) {
                self.sequences.insert(place.clone(), chunk.next_sequence());
            }
            let lane = work.lane(place);
            (lane.tries, lane.problem) = (0, None);
            return self.doubt.stored(chunk);
        }
        let topic = &place.topic;
        match verdict {
            Verdict::TooLarge if chunk.members.len() == 1 => {
                for index in chunk.offered() {
                    let text = format!(
                        "larger than the topic {topic} takes: {} bytes as a record batch, more than its max.message.bytes",
                        chunk.bytes.len()
                    );
                    work.fail_for_good(index, &text);
                }
            }
            Verdict::TooLarge => {
                self.limits.insert(topic.clone(), chunk.size / 2);
                work.put_back(place, chunk.offered());
            }
            Verdict::Invalid(text) => sort_out(work, place, &chunk, &answer, text),
            Verdict::NewProducer => {
                if self.identity == Some(chunk.identity) {
                    self.identity = None;
                    self.sequences.clear();
                }
                work.put_back(place, chunk.offered());
                let text = format!("Kafka does not go on with this producer ({})", answer.error);
                self.problem(work, place, &text);
            }
            Verdict::Topic(text) => {
                let text = format!("Kafka refuses the topic {topic}: {text}");
                let offered = chunk.offered().collect();
                work.close(place, offered, &text, settings.topic.varies);
            }
            Verdict::Setting(text) => {
                let said = answer.text.unwrap_or_default();
                let text = format!("Kafka refuses the events: {text} {said}");
                work.close(place, chunk.offered().collect(), text.trim_end(), false);
            }
            Verdict::Stored | Verdict::Again(_) => {}
        }
    }

    /// A record batch did not get through; it may do so later.
    pub(super) fn problem(&mut self, work: &mut Work<'_>, place: &Place, text: &str) {
        let Place { topic, partition } = place;
        let lane = work.lane(place);
        lane.tries += 1;
        lane.problem = Some(format!("the topic {topic}, partition {partition}: {text}"));
        if lane.tries >= MOST_TRIES {
            self.give_up(work, place, text);
        }
    }

    /// For this call nothing more is tried with a partition.
    pub(super) fn give_up(&mut self, work: &mut Work<'_>, place: &Place, text: &str) {
        let chunk = self.doubt.chunks.get(place);
        let in_doubt = chunk.map(|chunk| chunk.offered().collect());
        let problem = work.lane(place).problem.take();
        let text = problem.unwrap_or_else(|| text.to_owned());
        work.close(place, in_doubt.unwrap_or_default(), &text, false);
    }

    /// Asks the cluster about the topics whose partitions have problems, after a pause
    /// that grows with each try.
    pub(super) fn look_again(
        &mut self,
        settings: &Settings,
        work: &mut Work<'_>,
        deadline: Instant,
    ) {
        let with_problem = |(_, lane): &(_, &Lane)| lane.problem.is_some();
        let lanes = work.lanes.iter().filter(with_problem);
        let lanes: Vec<(Place, u32)> = lanes.map(|(p, lane)| (p.clone(), lane.tries)).collect();
        let Some(tries) = lanes.iter().map(|(_, tries)| *tries).min() else {
            return;
        };
        if tries > 1 {
            let left = deadline.saturating_duration_since(Instant::now());
            std::thread::sleep(pause(tries - 1).min(left));
        }
        let mut topics: Vec<&str> = lanes.iter().map(|(place, _)| &*place.topic).collect();
        topics.dedup();
        match self.cluster.find(&topics, deadline) {
            // Nobody to be asked will say more soon.
            Err(text) => {
                for (place, _) in &lanes {
                    work.lane(place).problem = Some(text.clone());
                    self.give_up(work, place, &text);
                }
            }
            Ok(faults) => {
                for (place, _) in &lanes {
                    let leaders = self.cluster.leaders(&place.topic);
                    let (text, for_good) = match (faults.get(&*place.topic), leaders) {
                        // What is in doubt may still find its way.
                        (Some(fault), _) if !fault.is_lasting => continue,
                        (Some(fault), _) => {
                            let text = format!("the topic {}: {}", place.topic, fault.text);
                            (text, settings.topic.varies)
                        }
                        (None, Some(leaders)) if leaders.len() <= place.partition as usize => (
                            "the topic has fewer partitions than before".to_owned(),
                            false,
                        ),
                        _ => continue,
                    };
                    // Where it was to go there is nothing any more.
                    let chunk = self.doubt.chunks.remove(place);
                    self.sequences.remove(place);
                    let in_doubt = chunk.map(|chunk| chunk.offered().collect());
                    work.close(place, in_doubt.unwrap_or_default(), &text, for_good);
                }
            }
        }
    }
}

/// The records a broker names are given up, the others are sent once more. If it names
/// none, they are sent one by one.
fn sort_out(work: &mut Work<'_>, place: &Place, chunk: &Chunk, answer: &Answer, text: &str) {
    let mut named = HashMap::new();
    for (number, text) in &answer.records {
        if let Ok(number) = usize::try_from(*number) {
            named.insert(number, text.as_deref().unwrap_or_default());
        }
    }
    let is_alone = chunk.members.len() == 1;
    let said = answer.text.as_deref().unwrap_or_default();
    let mut others = Vec::new();
    for (number, member) in chunk.members.iter().enumerate() {
        let Member::Offered(index) = member else {
            continue;
        };
        let reason = named.get(&number).copied().or(is_alone.then_some(said));
        match reason {
            Some(reason) => {
                let text = format!(
                    "Kafka refuses it for the topic {}: {text} {reason}",
                    place.topic
                );
                work.fail_for_good(*index, text.trim_end());
            }
            None => others.push(*index),
        }
    }
    if !named.keys().any(|number| *number < chunk.members.len()) {
        work.lane(place).one_by_one = true;
    }
    work.put_back(place, others.into_iter());
}
