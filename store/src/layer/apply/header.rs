//! The fields of one 512-byte header.
//!
//! The tar crate knows where the fields lie. The numbers are read here, because the crate lets a base-256 number
//! overflow silently, and the name as well, because it depends on the dialect (ustar, GNU, star).

use tar::Header;

use super::error::Problem;

/// The length of a header, and what data is padded to, in bytes.
pub(super) const BLOCK: usize = 512;

/// Octal digits with spaces or NULs around them, or a big-endian two's complement number whose first bit is set
/// (GNU's base-256). Nothing but spaces and NULs is 0, as everyone reads it.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

/// Decimal digits, as PAX records and sparse maps have them.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

fn octal(field: &[u8]) -> Option<i128> {
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let rest = &field[start..];
    let end = rest.iter().position(blank).unwrap_or(rest.len());
    if !rest[end..].iter().all(blank) {
        return None;
    }
    rest[..end].iter().try_fold(0i128, |n, b| match b {
        b'0'..=b'7' => Some(n * 8 + i128::from(b - b'0')),
        _ => None,
    })
}

fn base256(field: &[u8]) -> Option<i128> {
    // 0x80 introduces a positive number, 0xff a negative one; the bit below the marker is the sign.
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let mut value = i128::from(first as i8);
    for byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    Some(value)
}

/// Whether the checksum fits; some old writers summed signed bytes.
pub(super) fn checksum_fits(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let covered = || bytes[..148].iter().chain(&bytes[156..]);
    let unsigned: i128 = covered().map(|b| i128::from(*b)).sum::<i128>() + 8 * 32;
    let signed: i128 = covered().map(|b| i128::from(*b as i8)).sum::<i128>() + 8 * 32;
    number(&header.as_old().cksum).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// The name that the header itself gives, with ustar's prefix.
pub(super) fn name(header: &Header) -> Vec<u8> {
    let name = text(&header.as_old().name);
    let prefix = prefix(header);
    match prefix.is_empty() {
        true => name.to_vec(),
        false => [prefix, b"/", name].concat(),
    }
}

fn prefix(header: &Header) -> &[u8] {
    let bytes = header.as_bytes();
    // Some writers mix ustar's magic with GNU's version: the magic tells whether there is a prefix.
    if &bytes[257..263] != b"ustar\0" {
        return &[];
    }
    // star keeps atime and ctime at the end of the field and marks the header by its trailer.
    match &bytes[508..] {
        b"tar\0" => text(&bytes[345..476]),
        _ => text(&bytes[345..500]),
    }
}

/// Major and minor number of a device.
pub(super) fn device(header: &Header) -> Result<(u32, u32), Problem> {
    let bytes = header.as_bytes();
    if &bytes[257..262] != b"ustar" {
        return Err(Problem::NotANumber("device number"));
    }
    let part = |field: &[u8]| {
        let n = number(field).ok_or(Problem::NotANumber("device number"))?;
        u32::try_from(n).map_err(|_| Problem::Range("device number"))
    };
    Ok((part(&bytes[329..337])?, part(&bytes[337..345])?))
}

/// A user or group id. `u32::MAX` is no id: chown takes it as "leave it".
pub(super) fn id(what: &'static str, value: i128) -> Result<u32, Problem> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Problem::IdRange { what, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_every_tar_reads_them() {
        let cases: &[(&[u8], Option<i128>)] = &[
            (b"0000644\0", Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\x01\x00", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff", Some(0xff_ffff_ffff_ffff)),
            (b"0008\0", None),
            (b"12 34", None),
            (b"0x12", None),
            (b"-1", None),
            (b"+1", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), *expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn the_last_id_is_none() {
        assert_eq!(id("uid", 0), Ok(0));
        assert_eq!(id("uid", 0xffff_fffe), Ok(0xffff_fffe));
        for bad in [-1, 0xffff_ffff, 1 << 32, i128::MAX] {
            assert!(id("uid", bad).is_err());
        }
    }
}
