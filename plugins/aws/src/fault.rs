//! What an error of a service means for the events, and what to do about it.
//!
//! Only what is wrong with an event is permanent. Keys, rights and queues can be put
//! right, and then the events go out.

use crate::Service;

/// What an error's code says is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A message of the call.
    Message,
    /// Nothing: the service cannot now.
    Moment,
    /// Who sends: the keys, the region or the clock. The service's text may quote the
    /// request's headers, and is not shown.
    Sender(&'static str),
    /// What the sender may do.
    Right,
    /// The queue or topic: it is not there.
    Target,
    /// The key the queue or topic encrypts with.
    Encryption,
    /// It is not known.
    Unknown,
}

impl Fault {
    /// What the code, as [`short`] makes it, says.
    pub(crate) fn of(code: &str, message: &str) -> Self {
        match code {
            // SNS has one code for what is wrong with a message and with the topic.
            "InvalidParameter" | "InvalidParameterValue" | "ParameterValueInvalid"
                if message.contains("TopicArn") || message.contains("QueueUrl") =>
            {
                Self::Target
            }
            "InvalidParameter"
            | "InvalidParameterValue"
            | "ParameterValueInvalid"
            | "InvalidMessageContents"
            | "InvalidAttributeValue"
            | "BatchRequestTooLong"
            | "Validation"
            | "ValidationError" => Self::Message,
            "RequestThrottled"
            | "Throttling"
            | "Throttled"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "SlowDown"
            | "KmsThrottled"
            | "KMSThrottling"
            | "KMS.Throttling"
            | "BandwidthLimitExceeded"
            | "InternalError"
            | "InternalFailure"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "RequestTimeout" => Self::Moment,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Self::Sender(
                "the session token has expired: put new AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the manifest",
            ),
            "InvalidClientTokenId"
            | "UnrecognizedClient"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationToken" => Self::Sender(
                "the service does not know these keys: correct AWS_ACCESS_KEY_ID, and AWS_SESSION_TOKEN if they expire",
            ),
            "SignatureDoesNotMatch"
            | "InvalidSignature"
            | "IncompleteSignature"
            | "AuthFailure" => {
                let late = ["expired", "not yet current", "too skewed"];
                if late.iter().any(|text| message.contains(text)) {
                    return Self::Sender(CLOCK);
                }
                Self::Sender("correct AWS_SECRET_ACCESS_KEY, or AWS_REGION: the signature is wrong")
            }
            "RequestExpired" | "RequestTimeTooSkewed" => Self::Sender(CLOCK),
            "AccessDenied"
            | "AuthorizationError"
            | "InvalidSecurity"
            | "OptInRequired"
            | "NotAuthorized"
            | "UnauthorizedOperation" => Self::Right,
            "QueueDoesNotExist"
            | "NonExistentQueue"
            | "NotFound"
            | "QueueDeletedRecently"
            | "InvalidAddress" => Self::Target,
            _ if code.starts_with("Kms") || code.starts_with("KMS") => Self::Encryption,
            _ => Self::Unknown,
        }
    }

    /// What to do, to end a text; nothing if there is nothing to do.
    pub(crate) fn advice<S: Service>(self) -> String {
        match self {
            Self::Message | Self::Moment | Self::Unknown => String::new(),
            Self::Sender(advice) => advice.to_owned(),
            Self::Right => format!("allow the owner of the keys {} there", S::RIGHT),
            Self::Target => format!("create the {}, or correct {}", S::KIND, S::TARGET),
            Self::Encryption => {
                format!("see to the KMS key the {} is encrypted with", S::KIND)
            }
        }
    }

    /// Whether the service's own words can be shown.
    pub(crate) fn shows_message(self) -> bool {
        !matches!(self, Self::Sender(_))
    }

    /// Whether further calls of the batch would fare the same.
    pub(crate) fn is_general(self) -> bool {
        !matches!(self, Self::Message)
    }
}

const CLOCK: &str = "the request's time is not the service's: set this machine's clock";

/// A code as [`Fault::of`] has it: `com.amazonaws.sqs#QueueDoesNotExist:http://...` and
/// `AWS.SimpleQueueService.NonExistentQueue` without what stands around, and
/// `ThrottlingException` without its end.
pub(crate) fn short(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    let code = code.split(':').next().unwrap_or(code);
    // What KMS says of the key is told from what others say by its name.
    let is_of_kms = code.starts_with("KMS.");
    let last = code.rsplit('.').next().filter(|_| !is_of_kms);
    let code = last.unwrap_or(code);
    code.strip_suffix("Exception").unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lose_what_stands_around_them() {
        for (code, expected) in [
            ("com.amazonaws.sqs#QueueDoesNotExist", "QueueDoesNotExist"),
            (
                "AWS.SimpleQueueService.NonExistentQueue",
                "NonExistentQueue",
            ),
            (
                "com.amazon.coral.service#ThrottlingException:http://x.y/",
                "Throttling",
            ),
            ("AccessDenied", "AccessDenied"),
            ("KMS.DisabledException", "KMS.Disabled"),
            ("", ""),
        ] {
            assert_eq!(short(code), expected);
        }
    }

    #[test]
    fn only_what_may_be_an_events_fault_is() {
        for code in [
            "com.amazonaws.sqs#InvalidMessageContents",
            "InvalidParameterValue",
            "AWS.SimpleQueueService.BatchRequestTooLong",
        ] {
            assert_eq!(Fault::of(short(code), "too long"), Fault::Message, "{code}");
        }
        for code in [
            "ThrottlingException",
            "InvalidClientTokenId",
            "SignatureDoesNotMatch",
            "ExpiredTokenException",
            "AccessDeniedException",
            "QueueDoesNotExist",
            "NotFoundException",
            "KmsDisabled",
            "KMS.DisabledException",
            "KMS.InvalidStateException",
            "KMSThrottlingException",
            "UnsupportedOperation",
            "MissingParameter",
            "SomethingNew",
        ] {
            assert!(Fault::of(short(code), "").is_general(), "{code}");
        }
        let topic = Fault::of("InvalidParameter", "Invalid parameter: TopicArn");
        assert_eq!(topic, Fault::Target);
    }

    #[test]
    fn a_signature_of_another_time_is_the_clocks_fault() {
        let message = "Signature expired: 20151101T000000Z is now earlier than ...";
        assert_eq!(
            Fault::of("SignatureDoesNotMatch", message),
            Fault::Sender(CLOCK)
        );
        assert_ne!(
            Fault::of("SignatureDoesNotMatch", "does not match"),
            Fault::Sender(CLOCK)
        );
        assert!(!Fault::Sender(CLOCK).shows_message());
    }
}
