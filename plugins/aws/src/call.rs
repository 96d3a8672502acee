//! One call: the signed request, and what its answer means.

use crate::entry::Entry;
use crate::fault::{Fault, short};
use crate::settings::Settings;
use crate::{Results, Service};
use backhaul_guest::PublishError;
use backhaul_guest::http::{self as exchange, Answer, Bounds, End, one_line};
use http::header::CONTENT_LENGTH;
use http::{Request, StatusCode};
use std::time::SystemTime;

/// Of an answer. One for ten entries has about 3 kB; texts of errors can make it more.
const MAX_ANSWER: usize = 256 << 10;

/// How much of what a service says goes to the log.
const MAX_SHOWN: usize = 300;

/// An error of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Error {
    /// For instance `com.amazonaws.sqs#QueueDoesNotExist`.
    pub code: String,
    /// What it says about it.
    pub message: String,
}

/// An entry the service has not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFault {
    /// The entry's id.
    pub id: String,
    /// Whether the service says that its sender is at fault.
    pub sender_fault: bool,
    /// Why.
    pub error: Error,
}

/// Why a call as a whole has failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) fault: Fault,
    pub(crate) text: String,
}

/// What became of each entry of a call, in their order.
pub(crate) type Fates = Vec<Result<(), PublishError>>;

/// Makes the call.
pub(crate) async fn make<S: Service>(
    settings: &Settings,
    entries: &[&Entry],
) -> Result<Fates, Failed> {
    let unknown = |text| Failed {
        fault: Fault::Unknown,
        text,
    };
    let request = request::<S>(settings, entries).map_err(unknown)?;
    let bounds = Bounds {
        keep: MAX_ANSWER,
        read: MAX_ANSWER,
    };
    let answer = exchange::send(request, &settings.origin, bounds).await;
    let answer = answer.map_err(unknown)?;
    if answer.status != StatusCode::OK {
        return Err(refused::<S>(settings, &answer));
    }
    let origin = &settings.origin;
    match answer.end {
        End::Whole => {}
        End::TooLong => {
            return Err(unknown(format!(
                "the answer of {origin} is longer than {MAX_ANSWER} bytes; is it {}?",
                S::NAME
            )));
        }
        End::BrokenOff => {
            return Err(unknown(format!("the answer of {origin} broke off")));
        }
    }
    let results = S::results(&answer.body).ok_or_else(|| {
        let shown = settings.signer.hide(&one_line(&answer.body, MAX_SHOWN));
        unknown(format!(
            "{origin} answered 200, but not as {} does: {shown:?}",
            S::NAME
        ))
    })?;
    Ok(fates::<S>(settings, entries, results))
}

fn request<S: Service>(
    settings: &Settings,
    entries: &[&Entry],
) -> Result<Request<Vec<u8>>, String> {
    let (headers, body) = S::request(&entries[0].target, entries);
    let length = body.len();
    let request = Request::post(format!("{}/", settings.origin)).body(body);
    let mut request = request.map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    let signed = settings.signer.sign(&mut request, SystemTime::now());
    signed.map_err(|error| format!("the request cannot be signed: {error}"))?;
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(request)
}

/// What an answer of another status than 200 means.
fn refused<S: Service>(settings: &Settings, answer: &Answer) -> Failed {
    let (status, origin) = (answer.status, &settings.origin);
    let Some(error) = S::error(&answer.headers, &answer.body) else {
        let shown = settings.signer.hide(&one_line(&answer.body, MAX_SHOWN));
        let text = format!(
            "{origin} answered {status}, and not as {} does: {shown:?}",
            S::NAME
        );
        let fault = Fault::Unknown;
        return Failed { fault, text };
    };
    let mut fault = Fault::of(short(&error.code), &error.message);
    // What the service cannot do is not the message's fault, whatever it is called.
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        fault = Fault::Moment;
    }
    let text = format!(
        "{origin} answered {status}, {}",
        said::<S>(settings, fault, &error)
    );
    Failed { fault, text }
}

/// The code, the service's words if they can be shown, and what to do.
fn said<S: Service>(settings: &Settings, fault: Fault, error: &Error) -> String {
    let code = one_line(short(&error.code).as_bytes(), MAX_SHOWN);
    let mut text = settings.signer.hide(&code);
    if fault.shows_message() && !error.message.is_empty() {
        let message = one_line(error.message.as_bytes(), MAX_SHOWN);
        text += &format!(": {}", settings.signer.hide(&message));
    }
    let advice = fault.advice::<S>();
    if !advice.is_empty() {
        text += &format!("; {advice}");
    }
    text
}

fn fates<S: Service>(settings: &Settings, entries: &[&Entry], results: Results) -> Fates {
    let fate = |entry: &&Entry| {
        if let Some(failed) = results.failed.iter().find(|failed| failed.id == entry.id) {
            return Err(refused_entry::<S>(settings, failed));
        }
        if results.taken.contains(&entry.id) {
            return Ok(());
        }
        let text = format!(
            "the answer of {} does not say what became of it",
            settings.origin
        );
        Err(PublishError::Retryable(text))
    };
    entries.iter().map(fate).collect()
}

/// The service says whose fault it is; but its sender is more than the message.
fn refused_entry<S: Service>(settings: &Settings, failed: &EntryFault) -> PublishError {
    let fault = Fault::of(short(&failed.error.code), &failed.error.message);
    let said = said::<S>(settings, fault, &failed.error);
    let text = format!("{} refused it, {said}", settings.origin);
    match fault {
        Fault::Message => PublishError::Permanent(text),
        Fault::Unknown if failed.sender_fault => PublishError::Permanent(text),
        _ => PublishError::Retryable(text),
    }
}
