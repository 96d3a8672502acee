//! The types Kafka's messages are made of, in the versions without compact fields:
//! big-endian numbers, and texts and arrays that begin with their length.

/// What was sent cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Appends fields.
pub(crate) trait Put {
    fn put_i8(&mut self, value: i8);
    fn put_i16(&mut self, value: i16);
    fn put_i32(&mut self, value: i32);
    fn put_i64(&mut self, value: i64);
    /// How many elements of an array, or bytes, follow.
    fn put_count(&mut self, count: usize);
    fn put_text(&mut self, text: &str);
}

impl Put for Vec<u8> {
    fn put_i8(&mut self, value: i8) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_count(&mut self, count: usize) {
        self.put_i32(i32::try_from(count).expect("memory holds less than 2 GiB"));
    }

    fn put_text(&mut self, text: &str) {
        // Names of topics and mechanisms, checked before.
        self.put_i16(i16::try_from(text.len()).expect("at most 32,767 bytes"));
        self.extend_from_slice(text.as_bytes());
    }
}

/// Fields that are read one after the other. No length is believed before so many
/// bytes are there.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Unreadable> {
        self.number().map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Unreadable> {
        self.number().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Unreadable> {
        self.number().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Unreadable> {
        self.number().map(i64::from_be_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Unreadable> {
        self.optional_text()?.ok_or(Unreadable)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a str>, Unreadable> {
        match usize::try_from(self.i16()?) {
            Ok(length) => {
                let text = std::str::from_utf8(self.take(length)?).map_err(|_| Unreadable)?;
                Ok(Some(text))
            }
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = usize::try_from(self.i32()?).map_err(|_| Unreadable)?;
        self.take(length)
    }

    /// Reads an array by reading each element. Nothing is reserved for what the length
    /// promises.
    pub(crate) fn array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let mut elements = Vec::new();
        // Null is -1.
        for _ in 0..self.i32()? {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*number)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read() {
        let mut bytes = Vec::new();
        bytes.put_i8(-1);
        bytes.put_i16(-2);
        bytes.put_i32(-3);
        bytes.put_i64(-4);
        bytes.put_text("Zoë");
        bytes.put_i16(-1);
        bytes.put_count(2);
        bytes.extend_from_slice(b"ab");
        bytes.put_count(2);
        bytes.put_i16(5);
        bytes.put_i16(6);
        bytes.put_i32(-1);
        let mut fields = Fields::new(&bytes);
        assert_eq!(fields.i8(), Ok(-1));
        assert_eq!(fields.i16(), Ok(-2));
        assert_eq!(fields.i32(), Ok(-3));
        assert_eq!(fields.i64(), Ok(-4));
        assert_eq!(fields.text(), Ok("Zoë"));
        assert_eq!(fields.optional_text(), Ok(None));
        assert_eq!(fields.bytes(), Ok(&b"ab"[..]));
        assert_eq!(fields.array(Fields::i16), Ok(vec![5, 6]));
        assert_eq!(fields.array(Fields::i16), Ok(vec![]));
        assert_eq!(fields.i8(), Err(Unreadable));
    }

    #[test]
    fn a_length_that_promises_more_than_there_is_reserves_nothing() {
        for bytes in [&b"\x7f\xff\xff\xff\0\x01"[..], b"\x7f\xff\xff\xff"] {
            assert_eq!(Fields::new(bytes).array(Fields::i16), Err(Unreadable));
            assert_eq!(Fields::new(bytes).bytes(), Err(Unreadable));
            assert_eq!(Fields::new(bytes).text(), Err(Unreadable));
        }
        assert_eq!(Fields::new(b"\xff\xff\xff\xfe").bytes(), Err(Unreadable));
        assert_eq!(Fields::new(b"\0\x01\xff").text(), Err(Unreadable));
        // An element takes at least a byte, so an array of nothing ends, too.
        assert_eq!(
            Fields::new(b"\0\0\0\x02\x01").array(Fields::i8),
            Err(Unreadable)
        );
    }
}
