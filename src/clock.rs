//! The time, as it is kept and as it is shown.

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

/// A time as RFC 3339 has it, with nanoseconds; `nanos` since 1970.
pub(crate) fn timestamp(nanos: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}
