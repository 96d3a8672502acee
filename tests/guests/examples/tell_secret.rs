//! Tells the value of its variable PASSWORD wherever it can: printed, as its
//! orders say (`print`), as the reason of a failure (`fail`), of a panic
//! (`panic`), and of not being able to close.

use backhaul_guest::{Backend, Event, Failure, OpenError};
use test_guests::{order, report};

struct TellSecret(String);

impl Backend for TellSecret {
    const NAME: &'static str = "tell-secret";

    fn open() -> Result<Self, OpenError> {
        Ok(TellSecret(std::env::var("PASSWORD")?))
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let TellSecret(password) = self;
        match order(events) {
            "print" => {
                println!("as it is: {password}.");
                eprintln!("quoted: {password:?}.");
                println!("{}{password}", "cut ".repeat(1023));
                eprint!("not ended: {password}");
                Ok(())
            }
            "panic" => panic!("with {password}!"),
            _ => report(format!("no entry with {password}!")),
        }
    }

    fn close(self) -> Result<(), String> {
        Err(format!("still in use: {}!", self.0))
    }
}

backhaul_guest::export!(TellSecret);
