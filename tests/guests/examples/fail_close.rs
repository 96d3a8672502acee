//! Notes in `/out/closed` that it is closed, and fails at it.

use backhaul_guest::{Backend, Event, Failure, OpenError};

struct FailClose;

impl Backend for FailClose {
    const NAME: &'static str = "fail-close";

    fn open() -> Result<Self, OpenError> {
        Ok(FailClose)
    }

    fn publish(&mut self, _: &[Event]) -> Result<(), Vec<Failure>> {
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        std::fs::write("/out/closed", "").expect("/out is granted");
        Err("the door\nis stuck".to_owned())
    }
}

backhaul_guest::export!(FailClose);
