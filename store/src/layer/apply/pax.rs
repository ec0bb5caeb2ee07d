//! PAX extended headers (POSIX.1-2001, pax Interchange Format), with the records GNU tar and star add.
//!
//! Read here and not by the tar crate, which ends a record at the first line feed: file capabilities and other
//! binary attributes contain them.

use super::error::{EntryName, Problem};
use super::header::decimal;
use super::sparse::{self, Segment};

/// What the records of one header say of the entry that follows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i128>,
    pub(super) gid: Option<i128>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<PaxSparse>,
}

/// The `GNU.sparse.*` records; which of them are there depends on the version.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: u64,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Vec<Segment>,
    offset: Option<u64>,
}

/// A point in time as the archive gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// Parses the data of an `x` header.
pub(super) fn parse(data: &[u8]) -> Result<Pax, Problem> {
    let mut pax = Pax::default();
    each_record(data, |key, value| pax.take(key, value))?;
    Ok(pax)
}

/// Checks the data of a `g` header: it may say what does not matter, and nothing that does.
pub(super) fn check_global(data: &[u8]) -> Result<(), Problem> {
    const HARMLESS: [&[u8]; 7] = [
        b"comment", b"mtime", b"atime", b"ctime", b"charset", b"uname", b"gname",
    ];
    each_record(data, |key, value| {
        let known = matches!(
            key,
            b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"hdrcharset"
        );
        let matters = known
            || key.starts_with(b"SCHILY.")
            || key.starts_with(SPARSE)
            || key.starts_with(b"LIBARCHIVE.");
        match matters && !HARMLESS.contains(&key) && !value.is_empty() {
            true => Err(Problem::GlobalPax(EntryName::new(key))),
            false => Ok(()),
        }
    })
}

/// `LENGTH KEY=VALUE\n`, where the length counts all of it.
fn each_record(
    mut data: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    while !data.is_empty() {
        let (record, rest) = split_record(data)?;
        let equals = record.iter().position(|b| *b == b'=');
        let equals = equals
            .filter(|at| *at > 0)
            .ok_or(Problem::BadPax("a record without a key"))?;
        take(&record[..equals], &record[equals + 1..])?;
        data = rest;
    }
    Ok(())
}

fn split_record(data: &[u8]) -> Result<(&[u8], &[u8]), Problem> {
    const DIGITS: usize = 10;
    let bad = Problem::BadPax("a record's length is wrong");
    let space = data
        .iter()
        .take(DIGITS + 1)
        .position(|b| *b == b' ')
        .ok_or(bad.clone())?;
    let length = usize::try_from(decimal(&data[..space]).ok_or(bad.clone())?).map_err(|_| bad.clone())?;
    if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
        return Err(bad);
    }
    Ok((&data[space + 1..length - 1], &data[length..]))
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        // An empty value takes a record back: the header's own field counts.
        match key {
            b"path" => set(&mut self.path, "name", name(value, "name")?),
            b"linkpath" => set(&mut self.link, "link target", name(value, "link target")?),
            b"size" => set(&mut self.size, "size", number("size", value)?),
            b"uid" => set(&mut self.uid, "uid", signed("uid", value)?),
            b"gid" => set(&mut self.gid, "gid", signed("gid", value)?),
            b"mtime" => {
                self.mtime = time(value)?;
                Ok(())
            }
            _ if key.starts_with(XATTR) => self.xattr(&key[XATTR.len()..], value),
            _ if key.starts_with(SPARSE) => self
                .sparse
                .get_or_insert_default()
                .take(&key[SPARSE.len()..], value),
            b"SCHILY.realsize" => Err(Problem::BadSparse("star's sparse files are not supported")),
            _ => Ok(()),
        }
    }

    /// The last one of a name wins, as everywhere.
    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Problem> {
        if name.is_empty() || name.contains(&0) {
            return Err(Problem::BadPax("an extended attribute without a proper name"));
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl PaxSparse {
    /// Versions 0.0 (offset and numbytes again and again), 0.1 (map) and 1.0 (the map lies before the data).
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let value_number = || decimal(value).ok_or(Problem::BadSparse("not a number"));
        match key {
            b"major" => self.major = value_number()?,
            b"minor" => {
                value_number()?;
            }
            b"name" => self.name = name(value, "name")?,
            b"size" | b"realsize" => return set(&mut self.real_size, "size", Some(value_number()?)),
            b"offset" => self.offset = Some(value_number()?),
            b"numbytes" => {
                let offset = self
                    .offset
                    .take()
                    .ok_or(Problem::BadSparse("a length without an offset"))?;
                self.map.push(Segment {
                    offset,
                    length: value_number()?,
                });
            }
            b"map" => self.map = sparse::parse_map(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn set<T: PartialEq>(slot: &mut Option<T>, what: &'static str, value: Option<T>) -> Result<(), Problem> {
    match (&slot, &value) {
        (Some(old), Some(new)) if old != new => Err(Problem::Conflict(what)),
        _ => {
            *slot = value;
            Ok(())
        }
    }
}

fn name(value: &[u8], what: &'static str) -> Result<Option<Vec<u8>>, Problem> {
    match value {
        [] => Ok(None),
        _ if value.contains(&0) => Err(Problem::Nul(what)),
        _ => Ok(Some(value.to_vec())),
    }
}

fn number(what: &'static str, value: &[u8]) -> Result<Option<u64>, Problem> {
    match value {
        [] => Ok(None),
        _ => decimal(value).map(Some).ok_or(Problem::NotANumber(what)),
    }
}

fn signed(what: &'static str, value: &[u8]) -> Result<Option<i128>, Problem> {
    match value {
        [] => Ok(None),
        [b'-', digits @ ..] => Ok(number(what, digits)?.map(|n| -i128::from(n))),
        _ => Ok(number(what, value)?.map(i128::from)),
    }
}

/// Decimal seconds with a fraction of any length; before 1970 with a minus sign before the whole.
fn time(value: &[u8]) -> Result<Option<Time>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let bad = Problem::NotANumber("time");
    let (negative, digits) = match value {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, value),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let whole = decimal(parts.next().unwrap_or_default()).ok_or(bad.clone())?;
    let whole = i64::try_from(whole).map_err(|_| Problem::Range("time"))?;
    let nanoseconds = fraction(parts.next().unwrap_or_default()).ok_or(bad)?;
    Ok(Some(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds: whole,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -whole,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -whole - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    }))
}

/// The first nine digits after the point; more are finer than any file system.
fn fraction(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |n, b| n * 10 + u32::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn values_may_hold_line_feeds_and_zeros() {
        let value = b"\x01\x00\x00\x02\x00\n\n\x00=";
        let data = [
            record("SCHILY.xattr.security.capability", value),
            record("path", b"x"),
        ]
        .concat();
        let pax = parse(&data).unwrap();
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), value.to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: &[&[u8]] = &[
            b"x",
            b"0 a=b\n",
            b"5 a=b\n",
            b"7 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 a=bb\n",
            b"6 =ab\n",
            b"6 abc\n",
            b"-6 a=b\n",
            b" 6 a=b\n",
            b"6 a=b\n\0\0",
            b"1 ",
        ];
        for data in cases {
            assert!(parse(data).is_err(), "{}", data.escape_ascii());
        }
        assert!(parse(b"6 a=b\n").is_ok());
        assert!(parse(b"").is_ok());
    }

    #[test]
    fn one_thing_has_one_value() {
        for key in ["path", "linkpath"] {
            let twice = [record(key, b"a"), record(key, b"b")].concat();
            assert!(matches!(parse(&twice), Err(Problem::Conflict(_))), "{key}");
        }
        let twice = [record("size", b"1"), record("size", b"2")].concat();
        assert_eq!(parse(&twice), Err(Problem::Conflict("size")));
        let same = [record("size", b"1"), record("size", b"1")].concat();
        assert_eq!(parse(&same).unwrap().size, Some(1));
    }

    #[test]
    fn numbers_are_checked() {
        for (key, value) in [
            ("size", "-1"),
            ("size", "18446744073709551616"),
            ("uid", "a"),
            ("mtime", "1e3"),
        ] {
            assert!(parse(&record(key, value.as_bytes())).is_err(), "{key}={value}");
        }
        assert_eq!(parse(&record("uid", b"-2")).unwrap().uid, Some(-2));
        assert_eq!(parse(&record("path", b"a\0b")), Err(Problem::Nul("name")));
    }

    #[test]
    fn times_have_fractions_and_signs() {
        let cases: &[(&str, i64, u32)] = &[
            ("1.5", 1, 500_000_000),
            ("1", 1, 0),
            ("1.0000000019", 1, 1),
            ("-1.5", -2, 500_000_000),
            ("-1", -1, 0),
            ("-0.25", -1, 750_000_000),
        ];
        for (text, seconds, nanoseconds) in cases {
            let expected = Time {
                seconds: *seconds,
                nanoseconds: *nanoseconds,
            };
            assert_eq!(time(text.as_bytes()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn global_headers_may_only_say_what_does_not_matter() {
        assert!(check_global(&record("comment", b"commit id")).is_ok());
        assert!(check_global(&record("vendor.thing", b"x")).is_ok());
        for key in [
            "path",
            "size",
            "uid",
            "linkpath",
            "SCHILY.xattr.user.a",
            "GNU.sparse.major",
        ] {
            assert!(check_global(&record(key, b"1")).is_err(), "{key}");
        }
    }
}
