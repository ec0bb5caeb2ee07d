//! `box port`: the ports of the host that lead to a container.

use box_runner::{MappedPort, Protocol};

use crate::app::App;
use crate::cli::PortArgs;
use crate::containers;
use crate::error::{EXIT_INPUT, Failure};
use crate::ui;

/// Prints all, or those for one port of the container.
pub(super) fn run(app: &App, args: &PortArgs) -> Result<u8, Failure> {
    let container = containers::find(app, &args.container)?;
    let network = container
        .state
        .network
        .clone()
        .filter(|_| container.state.is_active());
    let ports = network.map(|network| network.ports).unwrap_or_default();
    let at = |port: &MappedPort| std::net::SocketAddr::new(port.address, port.host);
    let Some(text) = &args.port else {
        let line =
            |port: &MappedPort| format!("{}/{} -> {}\n", port.container, port.protocol.as_str(), at(port));
        ui::result(&ports.iter().map(line).collect::<String>())?;
        return Ok(0);
    };
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    };
    let (Ok(number), Some(protocol)) = (number.parse::<u16>(), protocol) else {
        return Err(Failure::own(format!("{text:?} is no port")).hint("write for example 80 or 53/udp"));
    };
    let found = ports
        .iter()
        .filter(|port| port.container == number && port.protocol == protocol);
    let lines: String = found.map(|port| format!("{}\n", at(port))).collect();
    if lines.is_empty() {
        let name = &container.config.name;
        return Err(Failure::new(
            EXIT_INPUT,
            format!("no port of the host leads to {text} of container {name}"),
        )
        .hint("`box run -p` publishes one; it is there while the container runs"));
    }
    ui::result(&lines).map(|()| 0)
}
