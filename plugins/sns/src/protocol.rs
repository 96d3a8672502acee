//! `PublishBatch` in SNS's query protocol: a form goes out and XML comes back.

use backhaul_aws::{ATTRIBUTE_TYPE, Entry, EntryFault, Error, Place, Results, Service};
use form_urlencoded::Serializer;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use roxmltree::{Document, Node};

/// Amazon Simple Notification Service.
pub(crate) struct Sns;

impl Service for Sns {
    const NAME: &'static str = "SNS";
    const SIGNING_NAME: &'static str = "sns";
    const TARGET: &'static str = "SNS_TOPIC_ARN";
    const TARGET_FORM: &'static str = "a topic's ARN, such as arn:aws:sns:eu-west-1:123456789012:events, with fields \
         after its account at most; a topic's name has up to 256 letters, digits, - and _, or ends in .fifo";
    const RIGHT: &'static str = "sns:Publish";
    const KIND: &'static str = "topic";
    const MAX_BYTES: usize = 256 << 10;
    const SUBJECTS: bool = true;

    fn place(target: &str) -> Option<Place> {
        let [partition, region, _, _] = arn(target)?;
        let domain = if partition == "aws-cn" {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        Some(Place {
            origin: format!("https://sns.{region}.{domain}"),
            region: Some(region.to_owned()),
        })
    }

    fn is_target(target: &str) -> bool {
        let Some([_, _, _, name]) = arn(target) else {
            return false;
        };
        let stem = name.strip_suffix(".fifo").unwrap_or(name);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        name.len() <= 256 && !stem.is_empty() && stem.bytes().all(plain)
    }

    fn request(target: &str, entries: &[&Entry]) -> (HeaderMap, Vec<u8>) {
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", "PublishBatch");
        form.append_pair("Version", "2010-03-31");
        form.append_pair("TopicArn", target);
        for (number, entry) in (1..).zip(entries) {
            append(&mut form, number, entry);
        }
        let form_type =
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        (headers, form.finish().into_bytes())
    }

    fn results(body: &[u8]) -> Option<Results> {
        let document = parse(body)?;
        let result = child(document.root_element(), "PublishBatchResult")?;
        let members = |list| {
            let list = child(result, list).into_iter();
            list.flat_map(|list| children(list, "member"))
        };
        let failed = members("Failed").map(|member| EntryFault {
            id: text(member, "Id"),
            sender_fault: text(member, "SenderFault").eq_ignore_ascii_case("true"),
            error: error(member),
        });
        Some(Results {
            taken: members("Successful")
                .map(|member| text(member, "Id"))
                .collect(),
            failed: failed.collect(),
        })
    }

    fn error(_: &HeaderMap, body: &[u8]) -> Option<Error> {
        let document = parse(body)?;
        Some(error(child(document.root_element(), "Error")?)).filter(|error| !error.code.is_empty())
    }
}

/// The partition, region, account and name of a topic's ARN; the first three have no fields.
fn arn(target: &str) -> Option<[&str; 4]> {
    let mut parts = target.splitn(6, ':');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (scheme, partition, service) = (next()?, next()?, next()?);
    let (region, account, name) = (next()?, next()?, next()?);
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let fixed = [partition, region, account].into_iter().all(plain);
    (scheme == "arn" && service == "sns" && fixed).then_some([partition, region, account, name])
}

fn append(form: &mut Serializer<'_, String>, number: usize, entry: &Entry) {
    let prefix = format!("PublishBatchRequestEntries.member.{number}");
    let mut pair = |name: &str, value: &str| {
        form.append_pair(&format!("{prefix}.{name}"), value);
    };
    pair("Id", &entry.id);
    pair("Message", &entry.body);
    if let Some(subject) = &entry.subject {
        pair("Subject", subject);
    }
    if let Some(fifo) = &entry.fifo {
        pair("MessageGroupId", &fifo.group);
        pair("MessageDeduplicationId", &fifo.deduplication_id);
    }
    for (number, (name, value)) in (1..).zip(&entry.attributes) {
        let attribute = format!("MessageAttributes.entry.{number}");
        pair(&format!("{attribute}.Name"), name);
        pair(&format!("{attribute}.Value.DataType"), ATTRIBUTE_TYPE);
        pair(&format!("{attribute}.Value.StringValue"), value);
    }
}

/// Elements are known by their local names: servers differ in the namespace.
fn parse(body: &[u8]) -> Option<Document<'_>> {
    Document::parse(std::str::from_utf8(body).ok()?).ok()
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children()
        .filter(move |child| child.tag_name().name() == name)
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

fn text(node: Node<'_, '_>, name: &'static str) -> String {
    let text = child(node, name).and_then(|child| child.text());
    text.unwrap_or_default().trim().to_owned()
}

fn error(node: Node<'_, '_>) -> Error {
    Error {
        code: text(node, "Code"),
        message: text(node, "Message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_a_topic_and_where_it_is() {
        for (target, origin) in [
            (
                "arn:aws:sns:eu-west-1:123456789012:events",
                "https://sns.eu-west-1.amazonaws.com",
            ),
            (
                "arn:aws-cn:sns:cn-north-1:1:e.fifo",
                "https://sns.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            assert!(Sns::is_target(target), "{target}");
            assert_eq!(Sns::place(target).unwrap().origin, origin);
        }
        assert!(Sns::place("arn:aws:sns:eu-west-1:1:{ext.tenant}").is_some());
        for bad in [
            "arn:aws:sqs:eu-west-1:1:events",
            "arn:aws:sns:{type}:1:events",
            "arn:aws:sns:eu-west-1:1",
            "arn:aws:sns:eu-west-1:1:",
            "arn:aws:sns:eu-west-1/x:1:events",
            "events",
        ] {
            assert!(Sns::place(bad).is_none(), "{bad}");
        }
        for bad in ["after:signup", "", ".fifo", "a.b", "a b", &"x".repeat(257)] {
            assert!(
                !Sns::is_target(&format!("arn:aws:sns:eu-west-1:1:{bad}")),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_answer_says_what_became_of_each_entry() {
        let body = br#"<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/">
  <PublishBatchResult>
    <Failed><member><Id>1</Id><Code>InternalError</Code><Message>a &amp; b</Message><SenderFault>false</SenderFault></member></Failed>
    <Successful><member><Id>0</Id><MessageId>m</MessageId></member><member><Id>2</Id></member></Successful>
  </PublishBatchResult>
  <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>
</PublishBatchResponse>"#;
        let results = Sns::results(body).unwrap();
        assert_eq!(results.taken, ["0", "2"]);
        assert_eq!(results.failed.len(), 1);
        assert_eq!(results.failed[0].error.message, "a & b");
        assert!(!results.failed[0].sender_fault);
        for other in [&b""[..], b"<html/>", b"{}", b"\xff"] {
            assert_eq!(Sns::results(other), None);
        }
    }

    #[test]
    fn an_error_has_a_code() {
        let body = br#"<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/">
  <Error><Type>Sender</Type><Code>NotFound</Code><Message>Topic does not exist</Message></Error>
</ErrorResponse>"#;
        let error = Sns::error(&HeaderMap::new(), body).unwrap();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("NotFound", "Topic does not exist")
        );
        assert_eq!(Sns::error(&HeaderMap::new(), b"<a/>"), None);
    }
}
