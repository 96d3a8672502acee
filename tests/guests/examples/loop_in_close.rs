//! Publishes, and computes without end in `close`.

use backhaul_guest::{Backend, Event, Failure, OpenError};

struct LoopInClose;

impl Backend for LoopInClose {
    const NAME: &'static str = "loop-in-close";

    fn open() -> Result<Self, OpenError> {
        Ok(LoopInClose)
    }

    fn publish(&mut self, _: &[Event]) -> Result<(), Vec<Failure>> {
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        loop {
            std::hint::spin_loop();
        }
    }
}

backhaul_guest::export!(LoopInClose);
