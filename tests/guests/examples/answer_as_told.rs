//! Answers what it is told, byte for byte: `name` and `close` by its variables
//! NAME and CLOSE (in hexadecimal), `publish` by the data of its events, one
//! after the other. What it is told is a row of orders, see `Answer::obey`; what
//! is no order is passed over.

use std::io::Write;
use std::time::Duration;

use backhaul_guest::{Event, Failure, PublishError};
use test_guests::guest::blocking;

struct AsTold;

impl blocking::exports::backhaul::backend::blocking_backend::Guest for AsTold {
    fn name() -> String {
        text(variable("NAME"))
    }

    fn publish(events: Vec<Event>) -> Result<(), Vec<Failure>> {
        let mut answer = Answer::default();
        for event in &events {
            answer.obey(Orders(&event.data));
        }
        match answer.failures.is_empty() && !answer.failed {
            true => Ok(()),
            false => Err(answer.failures),
        }
    }

    fn close() -> Result<(), String> {
        let mut answer = Answer::default();
        answer.obey(Orders(&variable("CLOSE")));
        match answer.failures.pop() {
            None => Ok(()),
            Some(Failure { error, .. }) => match error {
                PublishError::Retryable(text) | PublishError::Permanent(text) => Err(text),
            },
        }
    }
}

blocking::export_world!(AsTold with_types_in blocking);

#[derive(Default)]
struct Answer {
    failures: Vec<Failure>,
    failed: bool,
}

impl Answer {
    fn obey(&mut self, mut orders: Orders<'_>) {
        while let Some(order) = orders.byte() {
            match order {
                // A failure of an event: index, `p` if it is permanent, text.
                b'F' => {
                    let index = orders.number();
                    let permanent = orders.byte() == Some(b'p');
                    self.fail(index, permanent, text(orders.bytes().to_vec()));
                }
                // The same, with a text that is anywhere in memory or outside it.
                b'R' => {
                    let (index, address, length) =
                        (orders.number(), orders.number(), orders.number());
                    // SAFETY: not sound, which is the point: the text goes to
                    // the host as it is, and the instance ends with it.
                    let text = unsafe {
                        String::from_raw_parts(
                            (address as usize).max(1) as *mut u8,
                            length as usize,
                            length as usize,
                        )
                    };
                    self.fail(index, false, text);
                }
                // The last failure again, for a number of events after it.
                b'M' => {
                    let times = orders.number().min(100_000);
                    if let Some(last) = self.failures.last().cloned() {
                        self.failures.extend((1..=times).map(|n| Failure {
                            index: last.index.wrapping_add(n),
                            ..last.clone()
                        }));
                    }
                }
                // Failed, whether or not a failure is listed.
                b'K' => self.failed = true,
                b'O' => drop(std::io::stdout().write_all(orders.bytes())),
                b'E' => drop(std::io::stderr().write_all(orders.bytes())),
                b'P' => panic!("{}", String::from_utf8_lossy(orders.bytes())),
                b'T' => core::arch::wasm32::unreachable(),
                b'X' => std::process::exit(i32::from(orders.byte().unwrap_or(0))),
                b'L' => loop {
                    std::hint::black_box(());
                },
                b'S' => std::thread::sleep(Duration::from_millis(orders.number().into())),
                b'A' => std::mem::forget(std::hint::black_box(vec![1u8; orders.number() as usize])),
                b'.' => return,
                _ => {}
            }
        }
    }

    fn fail(&mut self, index: u32, permanent: bool, text: String) {
        let error = match permanent {
            true => PublishError::Permanent(text),
            false => PublishError::Retryable(text),
        };
        self.failures.push(Failure { index, error });
    }
}

/// A row of orders. What is missing at its end is zero, or empty.
struct Orders<'a>(&'a [u8]);

impl<'a> Orders<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Digits, up to the first character that is none; that is skipped.
    fn number(&mut self) -> u32 {
        let mut number = 0u32;
        while let Some(digit) = self.byte().filter(u8::is_ascii_digit) {
            number = number
                .wrapping_mul(10)
                .wrapping_add(u32::from(digit - b'0'));
        }
        number
    }

    /// A length, and so many bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let length = self.number() as usize;
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

fn variable(name: &str) -> Vec<u8> {
    let digits = std::env::var(name).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).filter_map(byte).collect()
}

/// The bytes as a text, whether they are one or not.
fn text(bytes: Vec<u8>) -> String {
    // SAFETY: not sound as Rust has it, which is the point; nothing here looks
    // at it.
    unsafe { String::from_utf8_unchecked(bytes) }
}
