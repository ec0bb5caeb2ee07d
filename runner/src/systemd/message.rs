//! One method call as D-Bus has it on the wire, and what is read of its answer (D-Bus specification, "Message Protocol").

const LITTLE_ENDIAN: u8 = b'l';
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const VERSION: u8 = 1;
/// The fixed part of a header, before its fields.
pub(super) const FIXED: usize = 16;
/// Longest answer that is read, in bytes; the protocol allows 128 MiB.
const MAX_LENGTH: usize = 1 << 20;

mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

/// A call of `StartTransientUnit(name, mode, properties, others)`, or with no `unit` one without arguments.
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) unit: &'a str,
    pub(super) properties: &'a [Property],
}

/// A property of a unit.
pub(super) struct Property(pub(super) &'static str, pub(super) Value);

/// Its value.
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Numbers(Vec<u32>),
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: usize) {
        self.align(4);
        // Nothing written here comes near four gigabytes.
        self.0
            .extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length counts from the first element, which is aligned.
    fn array(&mut self, element: usize, write: impl FnOnce(&mut Writer)) {
        self.number(0);
        let at = self.0.len();
        self.align(element);
        let first = self.0.len();
        write(self);
        let length = u32::try_from(self.0.len() - first).unwrap_or(u32::MAX);
        self.0[at - 4..at].copy_from_slice(&length.to_le_bytes());
    }

    fn property(&mut self, Property(name, value): &Property) {
        self.align(8);
        self.text(name);
        match value {
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Flag(flag) => {
                self.signature("b");
                self.number(usize::from(*flag));
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |array| {
                    numbers.iter().for_each(|number| array.number(*number as usize));
                });
            }
        }
    }

    fn field(&mut self, code: u8, signature: &str, value: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(signature);
        match signature {
            "g" => self.signature(value),
            _ => self.text(value),
        }
    }
}

impl Call<'_> {
    fn body(&self) -> Vec<u8> {
        let mut body = Writer::default();
        if !self.unit.is_empty() {
            body.text(self.unit);
            body.text("fail");
            body.array(8, |array| {
                self.properties
                    .iter()
                    .for_each(|property| array.property(property));
            });
            body.array(8, |_| {});
        }
        body.0
    }

    /// The whole message.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let body = self.body();
        let mut message = Writer(vec![LITTLE_ENDIAN, METHOD_CALL, 0, VERSION]);
        message.number(body.len());
        message.number(serial as usize);
        message.array(8, |fields| {
            fields.field(field::PATH, "o", self.path);
            fields.field(field::DESTINATION, "s", self.destination);
            fields.field(field::INTERFACE, "s", self.interface);
            fields.field(field::MEMBER, "s", self.member);
            if !body.is_empty() {
                fields.field(field::SIGNATURE, "g", "ssa(sv)a(sa(sv))");
            }
        });
        message.align(8);
        message.0.extend(body);
        message.0
    }
}

/// What is read of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A call was done.
    Done { serial: u32 },
    /// A call was refused: the error's name, and what it says.
    Refused { serial: u32, name: String, text: String },
    /// A signal, or what else is not for us.
    Other,
}

/// How long a message is, from its fixed part; none if it is no message, or too long a one.
pub(super) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    let number = |at: usize| number(fixed, at, fixed[0] == LITTLE_ENDIAN);
    let (body, fields) = (number(4)? as usize, number(12)? as usize);
    let is_known = matches!(fixed[0], b'l' | b'B') && fixed[3] == VERSION;
    let length = FIXED.checked_add(fields)?.next_multiple_of(8).checked_add(body)?;
    (is_known && length <= MAX_LENGTH).then_some(length)
}

/// Reads a whole message; what is cut or garbled is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
    let kind = *bytes.get(1)?;
    let mut reader = Reader {
        bytes,
        at: FIXED,
        is_little: *bytes.first()? == LITTLE_ENDIAN,
    };
    let end = FIXED.checked_add(number(bytes, 12, reader.is_little)? as usize)?;
    let (mut name, mut serial, mut has_text) = (String::new(), None, false);
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?) {
            (field::REPLY_SERIAL, "u") => serial = Some(reader.number()?),
            (field::ERROR_NAME, "s") => name = reader.text()?,
            (field::SIGNATURE, "g") => has_text = reader.signature()?.starts_with('s'),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            _ => return None,
        }
    }
    reader.at = end;
    reader.align(8);
    match kind {
        METHOD_RETURN => Some(Message::Done { serial: serial? }),
        ERROR => Some(Message::Refused {
            serial: serial?,
            name,
            text: if has_text { reader.text()? } else { String::new() },
        }),
        _ => Some(Message::Other),
    }
}

fn number(bytes: &[u8], at: usize, is_little: bool) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(match is_little {
        true => u32::from_le_bytes(four),
        false => u32::from_be_bytes(four),
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_little: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let number = number(self.bytes, self.at, self.is_little);
        self.at += 4;
        number
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).ok();
        self.take(1)?;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(unit: &'static str) -> Call<'static> {
        Call {
            destination: "a.b",
            path: "/a",
            interface: "a.c",
            member: "Do",
            unit,
            properties: &[],
        }
    }

    /// Byte by byte, from the specification's rules.
    #[test]
    fn a_call_without_arguments() {
        let expected: &[u8] = b"l\x01\0\x01\0\0\0\0\x07\0\0\0\x3b\0\0\0\
            \x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0\
            \x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
            \x02\x01s\0\x03\0\0\0a.c\0\0\0\0\0\
            \x03\x01s\0\x02\0\0\0Do\0\0\0\0\0\0";
        let got = call("").encode(7);
        assert_eq!(got.len() % 8, 0);
        assert_eq!(&got, expected);
        assert_eq!(length(got[..FIXED].try_into().unwrap()), Some(got.len()));
        assert_eq!(decode(&got), Some(Message::Other));
    }

    #[test]
    fn properties_are_aligned() {
        let mut writer = Writer::default();
        writer.array(8, |array| {
            array.property(&Property("PIDs", Value::Numbers(vec![0, 5])));
            array.property(&Property("D", Value::Flag(true)));
        });
        let expected: &[u8] = b"\x2c\0\0\0\0\0\0\0\
            \x04\0\0\0PIDs\0\x02au\0\0\0\0\x08\0\0\0\0\0\0\0\x05\0\0\0\
            \0\0\0\0\x01\0\0\0D\0\x01b\0\0\0\0\x01\0\0\0";
        // The length is told from the bytes themselves.
        let mut expected = expected.to_vec();
        let counted = u32::try_from(expected.len() - 8).unwrap();
        expected[..4].copy_from_slice(&counted.to_le_bytes());
        assert_eq!(writer.0, expected);
    }

    fn answer(kind: u8, fields: impl FnOnce(&mut Writer), body: &[u8]) -> Vec<u8> {
        let mut message = Writer(vec![LITTLE_ENDIAN, kind, 0, VERSION]);
        message.number(body.len());
        message.number(1);
        message.array(8, |array| {
            array.align(8);
            array.0.push(field::REPLY_SERIAL);
            array.signature("u");
            array.number(2);
            fields(array);
        });
        message.align(8);
        message.0.extend(body);
        message.0
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            decode(&answer(METHOD_RETURN, |_| {}, b"")),
            Some(Message::Done { serial: 2 })
        );
        let mut text = Writer::default();
        text.text("no such unit");
        let refused = answer(
            ERROR,
            |fields| {
                fields.field(field::ERROR_NAME, "s", "x.Error");
                fields.field(field::SIGNATURE, "g", "s");
            },
            &text.0,
        );
        let expected = Message::Refused {
            serial: 2,
            name: "x.Error".into(),
            text: "no such unit".into(),
        };
        assert_eq!(decode(&refused), Some(expected));
        // Cut anywhere, and with any byte changed: nothing breaks.
        for end in 0..refused.len() {
            assert!(!matches!(decode(&refused[..end]), Some(Message::Done { .. })));
        }
        for at in 0..refused.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = refused.clone();
                changed[at] = value;
                let _ = decode(&changed);
            }
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let mut fixed = [0u8; FIXED];
        (fixed[0], fixed[3]) = (b'l', VERSION);
        assert_eq!(length(&fixed), Some(FIXED));
        fixed[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(&fixed), None);
        assert_eq!(length(&[0; FIXED]), None);
    }
}
