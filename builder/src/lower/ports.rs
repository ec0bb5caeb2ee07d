//! EXPOSE: `80`, `80/udp`, `8000-8010`, and Docker's `ip:host:container` of which only the container's port counts.

/// The ports as the config names them (`80/tcp`); none if the text is none.
pub(super) fn parse_ports(text: &str) -> Option<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let container = match ports.rsplit_once(':') {
        Some((host, container)) if is_host(host) => container,
        Some(_) => return None,
        None => ports,
    };
    let (first, last) = range(container)?;
    Some((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// `host`, `ip:host`, `ip:`; the ports may be ranges.
fn is_host(text: &str) -> bool {
    let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
    port.is_empty() || range(port).is_some()
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (number(first)?, number(last)?);
    (range.0 <= range.1).then_some(range)
}

fn number(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let cases: [(&str, Option<&[&str]>); 14] = [
            ("80", Some(&["80/tcp"])),
            ("80/UDP", Some(&["80/udp"])),
            ("80/sctp", Some(&["80/sctp"])),
            ("80-82/tcp", Some(&["80/tcp", "81/tcp", "82/tcp"])),
            ("8080:80", Some(&["80/tcp"])),
            ("127.0.0.1:8080:80/udp", Some(&["80/udp"])),
            ("127.0.0.1::80", Some(&["80/tcp"])),
            ("", None),
            ("a", None),
            ("+80", None),
            ("80/icmp", None),
            ("82-80", None),
            ("65536", None),
            ("x:80", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|ports| ports.iter().map(|port| (*port).to_owned()).collect());
            assert_eq!(parse_ports(text), expected, "{text}");
        }
    }
}
