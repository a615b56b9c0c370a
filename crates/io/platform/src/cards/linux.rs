//! Interfaces on Linux, by rtnetlink. Not by /sys, which shows the network namespace in which it was mounted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
};
use partyline_model::CardKind;

use crate::netlink;

/// Bridges, VLANs and bonds may stand on each other; no real chain is longer.
const MAX_DEPTH: usize = 8;

/// What rtnetlink says of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    /// `None` for hardware, for which the driver names none.
    kind: Option<InfoKind>,
    /// The interface that it stands on, or the other end of a veth.
    lower: Option<u32>,
    /// True if `lower` counts in another network namespace.
    lower_is_elsewhere: bool,
    /// The bridge, bond or VRF that it is a port of.
    upper: Option<u32>,
}

/// What stands behind each interface, by index, and which addresses are deprecated.
type Interfaces = (BTreeMap<u32, CardKind>, BTreeSet<(u32, IpAddr)>);

pub(super) fn read() -> io::Result<Interfaces> {
    let mut links = Vec::new();
    netlink::dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            links.push(parse_link(link));
        }
    })?;
    let mut deprecated = BTreeSet::new();
    netlink::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            deprecated.extend(parse_deprecated(&address));
        }
    })?;
    Ok((classify(&links), deprecated))
}

fn parse_link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        lower: None,
        lower_is_elsewhere: false,
        upper: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Link(index) => link.lower = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(_) => link.lower_is_elsewhere = true,
            LinkAttribute::Controller(index) => link.upper = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkInfo(infos) => {
                let kind = |info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None };
                link.kind = infos.into_iter().find_map(kind);
            }
            _ => {}
        }
    }
    link
}

/// Returns the interface and the address, if that is deprecated.
fn parse_deprecated(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let mut deprecated = message.header.flags.contains(AddressHeaderFlags::Deprecated);
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(flags) => deprecated |= flags.contains(AddressFlags::Deprecated),
            // On a point-to-point interface the local address is the other attribute.
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(own) => address = address.or(Some(*own)),
            _ => {}
        }
    }
    address.filter(|_| deprecated).map(|address| (message.header.index, address))
}

/// Returns what stands behind each interface.
fn classify(links: &[Link]) -> BTreeMap<u32, CardKind> {
    links.iter().map(|link| (link.index, kind_of(link, links, MAX_DEPTH))).collect()
}

fn kind_of(link: &Link, links: &[Link], depth: usize) -> CardKind {
    use InfoKind::{
        Amt, BareUdp, BatAdv, Bond, Bridge, Dummy, ErSpan, Geneve, GreTap, GreTap6, GreTun, GreTun6, Gtp,
        Ifb, Ip6ErSpan, Ip6Tnl, IpIp, IpVlan, IpVtap, MacSec, MacVlan, MacVtap, Netdevsim, Netkit, Nlmon,
        SitTun, Team, Tun, Vcan, Veth, Vlan, Vrf, Vti, Vti6, Vxcan, Vxlan, Wireguard, Xfrm,
    };
    let Some(depth) = depth.checked_sub(1) else { return CardKind::Physical };
    let lower = || links.iter().find(|other| Some(other.index) == link.lower && !link.lower_is_elsewhere);
    match &link.kind {
        None => CardKind::Physical,
        Some(
            Tun | Wireguard | Vxlan | Geneve | GreTun | GreTun6 | GreTap | GreTap6 | ErSpan | Ip6ErSpan
            | IpIp | Ip6Tnl | SitTun | Vti | Vti6 | Xfrm | Gtp | BareUdp | Amt,
        ) => CardKind::Overlay,
        Some(InfoKind::Other(kind)) if is_tunnel(kind) => CardKind::Overlay,
        Some(InfoKind::Other(kind)) if kind == "openvswitch" => CardKind::Internal,
        Some(Dummy | Ifb | Nlmon | Vcan | Vxcan | Netdevsim) => CardKind::Internal,
        // Inside a container it is the card; where the other end is here as well, nothing outside is behind it.
        Some(Veth | Netkit) => lower().map_or(CardKind::Physical, |_| CardKind::Internal),
        Some(Vlan | MacVlan | MacVtap | IpVlan | IpVtap | MacSec) => {
            lower().map_or(CardKind::Physical, |lower| kind_of(lower, links, depth))
        }
        Some(Bridge) => kind_of_ports(link, links, depth).unwrap_or(CardKind::Internal),
        Some(Bond | Team | Vrf | BatAdv) => kind_of_ports(link, links, depth).unwrap_or(CardKind::Physical),
        Some(_) => CardKind::Physical,
    }
}

/// Kinds of tunnels that the netlink crate has no name for.
fn is_tunnel(kind: &str) -> bool {
    ["l2tp", "l2tp_eth", "ovpn", "ovpn-dco", "amneziawg", "ip6_vti", "pptp", "zerotier"].contains(&kind)
}

/// Returns what stands behind a bridge or bond: hardware if one port has it, another VPN if one port is of that, else
/// containers and virtual machines. `None` without ports.
fn kind_of_ports(link: &Link, links: &[Link], depth: usize) -> Option<CardKind> {
    let ports = links.iter().filter(|port| port.upper == Some(link.index) && port.index != link.index);
    let kinds: BTreeSet<CardKind> = ports.map(|port| kind_of_port(port, links, depth)).collect();
    let best_first = [CardKind::Physical, CardKind::Overlay, CardKind::Internal];
    best_first.into_iter().find(|kind| kinds.contains(kind))
}

fn kind_of_port(port: &Link, links: &[Link], depth: usize) -> CardKind {
    match port.kind {
        // The near end of a container's cable, or of a virtual machine's.
        Some(InfoKind::Veth | InfoKind::Netkit) => CardKind::Internal,
        Some(InfoKind::Tun) if is_virtual_machine(&port.name) => CardKind::Internal,
        _ => kind_of(port, links, depth),
    }
}

/// Returns true for the names that libvirt, Proxmox, Xen and systemd give to the cards of their guests.
fn is_virtual_machine(tap: &str) -> bool {
    let proxmox =
        |rest: &str| rest.contains('i') && rest.bytes().all(|byte| byte == b'i' || byte.is_ascii_digit());
    ["vnet", "macvtap", "vif", "vt-", "vb-"].iter().any(|prefix| tap.starts_with(prefix))
        || tap.strip_prefix("tap").is_some_and(proxmox)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<InfoKind>) -> Link {
        Link { index, name: name.into(), kind, lower: None, lower_is_elsewhere: false, upper: None }
    }

    fn kinds(links: &[Link]) -> Vec<CardKind> {
        classify(links).into_values().collect()
    }

    use CardKind::{Internal, Overlay, Physical};

    #[test]
    fn hardware_is_physical_and_tunnels_are_overlays() {
        let links = [
            link(2, "eth0", None),
            link(3, "wg0", Some(InfoKind::Wireguard)),
            link(4, "zt5u4y6", Some(InfoKind::Tun)),
            link(5, "vxlan7", Some(InfoKind::Vxlan)),
            link(6, "he-ipv6", Some(InfoKind::SitTun)),
            link(7, "l2tpeth0", Some(InfoKind::Other("l2tp".into()))),
            link(8, "ppp0", Some(InfoKind::Other("ppp".into()))),
            link(9, "dummy0", Some(InfoKind::Dummy)),
        ];
        let expected = [Physical, Overlay, Overlay, Overlay, Overlay, Overlay, Physical, Internal];
        assert_eq!(kinds(&links), expected);
    }

    #[test]
    fn what_stands_on_a_card_is_what_the_card_is() {
        let on = |index, kind, lower| Link { lower: Some(lower), ..link(index, "above", Some(kind)) };
        let links = [
            link(2, "eth0", None),
            link(3, "vxlan7", Some(InfoKind::Vxlan)),
            on(4, InfoKind::Vlan, 2),
            on(5, InfoKind::Vlan, 3),
            on(6, InfoKind::MacVlan, 5),
        ];
        assert_eq!(kinds(&links), [Physical, Overlay, Physical, Overlay, Overlay]);
    }

    #[test]
    fn a_bridge_is_what_its_ports_are() {
        let port = |index, name, kind, upper| Link { upper: Some(upper), ..link(index, name, kind) };
        let bridge = |index| link(index, "bridge", Some(InfoKind::Bridge));
        let links = [
            bridge(1),
            bridge(2),
            bridge(3),
            bridge(4),
            bridge(5),
            port(12, "veth1", Some(InfoKind::Veth), 2),
            port(13, "vnet0", Some(InfoKind::Tun), 3),
            port(14, "eth0", None, 4),
            port(15, "tap100i0", Some(InfoKind::Tun), 4),
            port(16, "tap0", Some(InfoKind::Tun), 5),
        ];
        assert_eq!(kinds(&links)[..5], [Internal, Internal, Internal, Physical, Overlay]);
    }

    #[test]
    fn a_veth_is_the_card_of_a_container_but_inside_one_computer_it_leads_nowhere() {
        let container =
            Link { lower: Some(9), lower_is_elsewhere: true, ..link(2, "eth0", Some(InfoKind::Veth)) };
        let ends =
            [3, 4].map(|index| Link { lower: Some(7 - index), ..link(index, "veth", Some(InfoKind::Veth)) });
        let [one, other] = ends;
        assert_eq!(kinds(&[container, one, other]), [Physical, Internal, Internal]);
    }

    #[test]
    fn a_circle_of_links_ends() {
        let on = |index, lower| Link { lower: Some(lower), ..link(index, "vlan", Some(InfoKind::Vlan)) };
        assert_eq!(kinds(&[on(1, 2), on(2, 1)]), [Physical, Physical]);
    }

    #[test]
    fn the_system_describes_its_interfaces() {
        let (kinds, _) = read().unwrap();
        assert!(!kinds.is_empty());
    }
}
