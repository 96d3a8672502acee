//! Backend `sns`: publishes events to topics of Amazon SNS, standard and FIFO, ten in a
//! call. What it shares with `sqs` is in the crate `backhaul-aws`; here are the calls
//! of SNS's query protocol.

mod protocol;

use backhaul_aws::Sender;
use backhaul_guest::{Backend, Event, Failure, OpenError};
use protocol::Sns;

struct Topics(Sender<Sns>);

impl Backend for Topics {
    const NAME: &'static str = "sns";

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

backhaul_guest::export!(Topics);
