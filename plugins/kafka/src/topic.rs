//! The topic of an event: a template whose result is a name Kafka takes.

use backhaul_guest::{Event, SettingError, Template, setting_or};
use std::borrow::Cow;

/// The most bytes of a topic's name.
const LONGEST: usize = 249;

pub(crate) struct TopicTemplate {
    template: Template,
    /// Whether events have a say in it.
    pub(crate) varies: bool,
}

impl TopicTemplate {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        Self::parse(&setting_or("KAFKA_TOPIC", "events"))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, SettingError> {
        let template = Template::parse("KAFKA_TOPIC", text)?;
        let varies = template.has_fields();
        if !varies && !is_name(text) {
            let expected = "the name of a topic, 1 to 249 letters, digits, dots, _ and -, or such a name with fields as in orders.{type}";
            return Err(SettingError::invalid("KAFKA_TOPIC", text, expected));
        }
        Ok(Self { template, varies })
    }

    /// The topic of this event. Characters that no topic may have become `-`.
    ///
    /// # Errors
    ///
    /// If it lacks an attribute for it, or the result is no name: a text for the log.
    pub(crate) fn of<'a>(&'a self, event: &'a Event) -> Result<Cow<'a, str>, String> {
        let topic = self.template.fill(event).map_err(|e| e.to_string())?;
        if is_name(&topic) {
            return Ok(topic);
        }
        let name = topic.replace(|c| !is_allowed(c), "-");
        if is_name(&name) {
            return Ok(name.into());
        }
        Err(format!(
            "KAFKA_TOPIC makes {topic:?} of it, which is no topic: 1 to {LONGEST} characters, and not only dots"
        ))
    }
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.chars().all(is_allowed)
        && !matches!(text, "." | "..")
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::event;

    fn topic(template: &str, event_type: &str) -> Result<String, String> {
        let event = Event {
            event_type: event_type.into(),
            ..event()
        };
        let template = TopicTemplate::parse(template).map_err(|e| e.to_string())?;
        template.of(&event).map(Cow::into_owned)
    }

    #[test]
    fn what_no_topic_may_have_becomes_a_dash() {
        assert_eq!(topic("events", "t").as_deref(), Ok("events"));
        assert_eq!(
            topic("in.{type}", "after:sign up/Zoë").as_deref(),
            Ok("in.after-sign-up-Zo-")
        );
    }

    #[test]
    fn what_is_no_topic_is_a_fault_of_the_setting_or_else_of_the_event() {
        for bad in ["a:b", "a b", ".", "..", "ö"] {
            let error = topic(bad, "t").unwrap_err();
            assert!(error.contains("the setting KAFKA_TOPIC is"), "{error}");
        }
        for bad in [".", "..", &"x".repeat(250)] {
            let error = topic("{type}", bad).unwrap_err();
            assert!(error.contains("which is no topic"), "{error}");
        }
        let error = topic("{subject}", "t").unwrap_err();
        assert!(error.contains("{subject}"), "{error}");
    }
}
