//! Messages and their attributes: a length, a type, a value, padded to four bytes.

/// A message in the making.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

const NESTED: u16 = 1 << 15;
const TYPE: u16 = 0x3fff;

impl Message {
    /// An empty message of this type.
    pub(crate) fn new(kind: u16) -> Message {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        Message { bytes }
    }

    /// More flags for it.
    pub(crate) fn flags(mut self, flags: i32) -> Message {
        let all = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags as u16;
        self.bytes[6..8].copy_from_slice(&all.to_ne_bytes());
        self
    }

    /// Bytes as they are: the family's header.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Message {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// An attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        self.push(kind, value);
        self
    }

    /// An attribute that is a number in the machine's own order.
    pub(crate) fn number(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// An attribute that is a number in network order.
    pub(crate) fn big(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_be_bytes())
    }

    /// An attribute that is a text.
    pub(crate) fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute made of what `fill` adds.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        self.push(kind | NESTED, &[]);
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// What follows the message's own header.
    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(16..).unwrap_or_default()
    }

    /// The bytes as they are sent.
    pub(crate) fn finish(self, more_flags: u16) -> Vec<u8> {
        let mut message = self.flags(libc::NLM_F_REQUEST | i32::from(more_flags));
        let len = message.bytes.len() as u32;
        message.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        message.bytes.resize(message.bytes.len().next_multiple_of(4), 0);
        message.bytes
    }
}

/// The attributes in these bytes; what is cut short is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of this type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A text without the NUL that ends it.
pub(crate) fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or_default()
}

/// The number, in the machine's order, at this place.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let bytes = Message::new(1)
            .raw(&[0; 4])
            .text(3, "box0")
            .nest(18, |m| m.number(1, 7).attr(2, &[1]))
            .finish(0);
        let body = &bytes[20..];
        assert_eq!(find(body, 3).map(text), Some("box0"));
        let nested: Vec<_> = attributes(find(body, 18).unwrap()).collect();
        assert_eq!(nested, [(1, 7u32.to_ne_bytes().as_slice()), (2, [1].as_slice())]);
        assert_eq!(find(body, 5), None);
        assert_eq!(bytes.len(), u32_at(&bytes, 0).unwrap() as usize);
    }

    #[test]
    fn nonsense_has_no_attributes() {
        for bytes in [&[0u8; 4][..], &[3, 0, 1, 0], &[200, 0, 1, 0, 5], &[1]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
