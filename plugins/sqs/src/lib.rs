//! Backend `sqs`: sends events to queues of Amazon SQS, standard and FIFO, ten in a
//! call. What it shares with `sns` is in the crate `backhaul-aws`; here are the calls
//! of SQS's JSON protocol.

mod protocol;

use backhaul_aws::Sender;
use backhaul_guest::{Backend, Event, Failure, OpenError};
use protocol::Sqs;

struct Queues(Sender<Sqs>);

impl Backend for Queues {
    const NAME: &'static str = "sqs";

    fn open() -> Result<Self, OpenError> {
        Ok(Self(Sender::from_env()?))
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        Err(wstd::runtime::block_on(self.0.publish(events)))
    }

    fn usable_after(&self, _: &[Failure]) -> bool {
        true
    }
}

backhaul_guest::export!(Queues);
