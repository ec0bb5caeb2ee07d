//! Ports as EXPOSE takes them: `[[IP:]HOST:]PORT[-PORT][/PROTO]`; what is said of the host is left out.

use std::net::IpAddr;

use thiserror::Error;

/// What is wrong with a port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// Nothing before `/` or after the last `:`.
    #[error("invalid port: {0:?}: no port specified")]
    Missing(String),
    /// No number from 0 to 65535, or a range that runs backwards.
    #[error("invalid port: {0:?}: expected a number up to 65535, or a range of them such as 7000-7010")]
    Invalid(String),
    /// What stands before the port is no IP address.
    #[error("invalid port: {spec:?}: invalid IP address: {address}")]
    Address {
        /// The whole word.
        spec: String,
        /// What should be an address.
        address: String,
    },
    /// The host's port is none, or its range is of another length.
    #[error("invalid port: {spec:?}: invalid hostPort: {port}")]
    HostPort {
        /// The whole word.
        spec: String,
        /// What should be a port or a range.
        port: String,
    },
    /// Neither tcp, udp nor sctp.
    #[error("invalid protocol in {0:?}: expected tcp, udp or sctp")]
    Protocol(String),
}

/// The ports of one (expanded) word of EXPOSE, each as `PORT/proto`.
///
/// # Errors
/// See [`PortError`].
pub fn parse_ports(spec: &str) -> Result<Vec<String>, PortError> {
    let (ports, protocol) = spec.rsplit_once('/').unwrap_or((spec, "tcp"));
    let protocol = if protocol.is_empty() {
        "tcp".to_owned()
    } else {
        protocol.to_lowercase()
    };
    let (host, port) = ports
        .rsplit_once(':')
        .map_or((None, ports), |(host, port)| (Some(host), port));
    if port.is_empty() {
        return Err(PortError::Missing(spec.to_owned()));
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(PortError::Protocol(spec.to_owned()));
    }
    let (first, last) = range(port).ok_or_else(|| PortError::Invalid(spec.to_owned()))?;
    if let Some(host) = host {
        check_host(spec, host, last - first)?;
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `PORT` or `PORT-PORT`
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| -> Option<u16> {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (number(first)?, number(last)?);
    (range.0 <= range.1).then_some(range)
}

/// `[IP:]PORT[-PORT]` of the host. A single port may stand for a range of them.
fn check_host(spec: &str, host: &str, length: u16) -> Result<(), PortError> {
    let (address, port) = host.rsplit_once(':').unwrap_or(("", host));
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(PortError::Address {
            spec: spec.to_owned(),
            address: address.to_owned(),
        });
    }
    let fits = |(first, last): (u16, u16)| length == 0 || last - first == length;
    match port.is_empty() || range(port).is_some_and(fits) {
        true => Ok(()),
        false => Err(PortError::HostPort {
            spec: spec.to_owned(),
            port: port.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{self, equal, strings};

    #[test]
    fn corpus_expose_ports() {
        corpus::check("parser__expose_ports", &[], |case| {
            match (
                parse_ports(case["spec"].as_str().unwrap()),
                case["expError"].as_str(),
            ) {
                (Ok(got), None) => equal(got, strings(&case["expected"])),
                (Err(got), Some(want)) => equal(got.to_string().as_str(), want),
                (got, want) => Err(format!("got {got:?}, want {want:?}")),
            }
        });
    }

    #[test]
    fn reads_ports() {
        let check = |spec: &str, want: Option<&[&str]>| {
            let got = parse_ports(spec).ok();
            assert_eq!(
                got,
                want.map(|w| w.iter().map(|p| (*p).to_owned()).collect()),
                "{spec}"
            );
        };
        check("80", Some(&["80/tcp"]));
        check("80/UDP", Some(&["80/udp"]));
        check("7000-7002/sctp", Some(&["7000/sctp", "7001/sctp", "7002/sctp"]));
        check("8080:80", Some(&["80/tcp"]));
        check("127.0.0.1::80", Some(&["80/tcp"]));
        check("8000-8002:80", Some(&["80/tcp"]));
        check("8000-8002:80-81", None);
        check("somewhere:80:80", None);
        check("x:80", None);
        check("70000", None);
        check("9-8", None);
        check("80/http", None);
        check("", None);
        check("-", None);
    }
}
