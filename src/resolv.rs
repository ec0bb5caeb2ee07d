//! What a container's `/etc/resolv.conf` says: the host's name servers, as far as the container can reach them.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::NetworkArgs;

const HOSTS: &str = "/etc/resolv.conf";
/// What the host's loopback resolver, when it is systemd's, asks itself.
const BEHIND_LOOPBACK: &str = "/run/systemd/resolve/resolv.conf";

/// What was asked for instead of the host's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wishes {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Wishes {
    /// Of `box run`.
    pub(crate) fn of(args: &NetworkArgs) -> Self {
        Self {
            servers: args.dns.clone(),
            search: args.dns_search.clone(),
            options: args.dns_option.clone(),
        }
    }

    fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty() && self.options.is_empty()
    }
}

/// The name servers that a container's own asks: those asked for, else the host's.
pub(crate) fn servers(wishes: &Wishes) -> Vec<IpAddr> {
    match wishes.servers.is_empty() {
        false => wishes.servers.clone(),
        true => Settings::parse(&read(HOSTS)).addresses(),
    }
}

/// The host's name servers, when a container is to ask them and reaches neither them nor any behind them.
pub(crate) fn on_loopback_alone(wishes: &Wishes) -> Option<Vec<IpAddr>> {
    if !wishes.servers.is_empty() {
        return None;
    }
    let own = Settings::parse(&read(HOSTS)).addresses();
    let is_alone = !own.is_empty()
        && own.iter().all(IpAddr::is_loopback)
        && Settings::parse(&read(BEHIND_LOOPBACK))
            .reachable(true)
            .next()
            .is_none();
    is_alone.then_some(own)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// What is reached from the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Nothing; only what was asked for is said.
    Nothing,
    /// What the host reaches.
    AsTheHost,
    /// All but the host's loopback.
    Outside {
        /// IPv6 as well.
        has_ipv6: bool,
        /// Where the host's loopback resolvers are for the container, if anywhere.
        relay: Option<IpAddr>,
    },
}

/// The file's content, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// The content.
    pub(crate) content: Vec<u8>,
    /// Whether the host has name servers and the container reaches none of them.
    pub(crate) is_without_servers: bool,
}

/// The file for a container.
pub(crate) fn for_container(reach: Reach, wishes: &Wishes) -> ResolvConf {
    make(reach, wishes, &read(HOSTS), || read(BEHIND_LOOPBACK))
}

fn make(reach: Reach, wishes: &Wishes, hosts: &str, behind_loopback: impl FnOnce() -> String) -> ResolvConf {
    let plain = |content: String| ResolvConf {
        content: content.into_bytes(),
        is_without_servers: false,
    };
    match reach {
        Reach::AsTheHost if wishes.is_empty() => plain(hosts.to_owned()),
        Reach::AsTheHost => plain(write(Settings::parse(hosts), wishes)),
        Reach::Nothing => plain(write(Settings::default(), wishes)),
        // A name server of its own knows more than any other, and asks those that were wished for.
        Reach::Outside {
            relay: Some(relay), ..
        } if relay.is_loopback() => {
            let own = Wishes {
                servers: vec![relay],
                ..wishes.clone()
            };
            plain(write(Settings::parse(hosts), &own))
        }
        Reach::Outside { has_ipv6, relay } => {
            let mut settings = Settings::parse(hosts);
            if settings.servers.iter().all(|server| is_loopback(server.as_str())) {
                let behind = Settings::parse(&behind_loopback());
                if behind.reachable(has_ipv6).next().is_some() {
                    settings = behind;
                }
            }
            let reachable: Vec<String> = settings.reachable(has_ipv6).map(str::to_owned).collect();
            settings.servers = match (reachable.is_empty(), relay) {
                (true, Some(relay)) => vec![relay.to_string()],
                _ => reachable,
            };
            let is_without_servers = settings.servers.is_empty() && wishes.servers.is_empty();
            ResolvConf {
                content: write(settings, wishes).into_bytes(),
                is_without_servers,
            }
        }
    }
}

/// The lines that are understood; others, as `sortlist`, make no sense for a container.
#[derive(Debug, Default)]
struct Settings {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let first = words.next();
            let words = words.map(str::to_owned);
            match first {
                Some("nameserver") => settings.servers.extend(words.take(1)),
                // The last one counts.
                Some("search" | "domain") => settings.search = words.collect(),
                Some("options") => settings.options.extend(words),
                _ => {}
            }
        }
        settings
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.servers
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect()
    }

    fn reachable(&self, has_ipv6: bool) -> impl Iterator<Item = &str> {
        self.servers.iter().map(String::as_str).filter(move |server| {
            let Ok(address) = server.parse::<IpAddr>() else {
                // An address with a zone is for an interface of the host's.
                return false;
            };
            !address.is_loopback() && !address.is_unspecified() && (has_ipv6 || address.is_ipv4())
        })
    }
}

fn is_loopback(server: &str) -> bool {
    server
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

fn write(settings: Settings, wishes: &Wishes) -> String {
    let servers = match wishes.servers.is_empty() {
        true => settings.servers,
        false => wishes.servers.iter().map(IpAddr::to_string).collect(),
    };
    let or = |wished: &Vec<String>, own: Vec<String>| match wished.as_slice() {
        [] => own,
        [none] if none == "." => Vec::new(),
        _ => wished.clone(),
    };
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, values) in [
        ("search", or(&wishes.search, settings.search)),
        ("options", or(&wishes.options, settings.options)),
    ] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Reach = Reach::Outside {
        has_ipv6: false,
        relay: None,
    };

    fn check(reach: Reach, wishes: &Wishes, hosts: &str, expect: (&str, bool)) {
        let behind = || "nameserver 192.0.2.9\nsearch behind.example\n".to_owned();
        let made = make(reach, wishes, hosts, behind);
        let content = String::from_utf8(made.content).unwrap();
        assert_eq!((content.as_str(), made.is_without_servers), expect, "{hosts:?}");
    }

    #[test]
    fn the_hosts_servers_as_far_as_they_are_reached() {
        let none = Wishes::default();
        let hosts = "# made by hand\nnameserver 192.0.2.1\nnameserver 127.0.0.1\nsearch a.example b.example\noptions ndots:2\n";
        let own = "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2\n";
        check(OUTSIDE, &none, hosts, (own, false));
        check(Reach::AsTheHost, &none, hosts, (hosts, false));
        check(Reach::Nothing, &none, hosts, ("", false));
        let behind = "nameserver 192.0.2.9\nsearch behind.example\n";
        check(
            OUTSIDE,
            &none,
            "nameserver 127.0.0.53\noptions edns0\n",
            (behind, false),
        );
        check(OUTSIDE, &none, "", (behind, false));
        check(
            OUTSIDE,
            &none,
            "nameserver fe80::1%eth0\nnameserver 2001:db8::1\n",
            ("", true),
        );
        let both = Reach::Outside {
            has_ipv6: true,
            relay: None,
        };
        check(
            both,
            &none,
            "nameserver 2001:db8::1\n",
            ("nameserver 2001:db8::1\n", false),
        );
    }

    #[test]
    fn a_loopback_resolver_by_a_relay() {
        let made = |relay| {
            let reach = Reach::Outside {
                has_ipv6: false,
                relay,
            };
            make(reach, &Wishes::default(), "nameserver 127.0.0.1\n", String::new)
        };
        assert!(made(None).is_without_servers);
        let relayed = made(Some("169.254.1.1".parse().unwrap()));
        assert_eq!(relayed.content, b"nameserver 169.254.1.1\n");
    }

    #[test]
    fn a_name_server_of_its_own_is_the_only_one() {
        let wishes = Wishes {
            servers: vec!["192.0.2.7".parse().unwrap()],
            ..Wishes::default()
        };
        let own = Reach::Outside {
            has_ipv6: false,
            relay: Some("127.0.0.11".parse().unwrap()),
        };
        let hosts = "nameserver 192.0.2.1\nsearch a.example\n";
        for wishes in [&wishes, &Wishes::default()] {
            check(
                own,
                wishes,
                hosts,
                ("nameserver 127.0.0.11\nsearch a.example\n", false),
            );
        }
    }

    #[test]
    fn wishes_go_before() {
        let wishes = Wishes {
            servers: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["rotate".into(), "ndots:1".into()],
        };
        let said = "nameserver 192.0.2.7\nnameserver 2001:db8::7\noptions rotate ndots:1\n";
        let hosts = "nameserver 192.0.2.1\nsearch a.example\n";
        for reach in [OUTSIDE, Reach::AsTheHost, Reach::Nothing] {
            check(reach, &wishes, hosts, (said, false));
        }
    }
}
