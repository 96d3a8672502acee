//! What an address leads to: the public network, a private one, or this
//! machine and its provider's services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address leads to, the more intimate the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::wasm) enum Reach {
    /// Anything else.
    Public,
    /// A network of the operator's own, or of their provider.
    Private,
    /// This machine, its own link, or what only a machine can ask of its
    /// provider, the metadata services of clouds among them. Also everybody at
    /// once: broadcast and multicast.
    Inside,
}

/// What `address` leads to. An IPv6 address that carries an IPv4 one leads where
/// that does, because something on the way may translate it.
pub(in crate::wasm) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // "This network": 0.0.0.0 leads to this machine. Loopback, link-local.
        [0 | 127, ..] | [169, 254, ..] => Reach::Inside,
        // The metadata services of Alibaba Cloud, Azure and Oracle (the last in
        // a block for protocols, none of them for a queue).
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, _] => Reach::Inside,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => Reach::Inside,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reach::Private,
        // Shared by a provider and its customers; for measurements in networks.
        [100, 64..=127, ..] | [198, 18..=19, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let v4 =
        |high: u16, low: u16| reach_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Inside,
        // IPv4-mapped; IPv4-compatible; NAT64.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            v4(high, low)
        }
        // NAT64 of a network's own: where the IPv4 address stands is its secret.
        [0x64, 0xff9b, 1, ..] => Reach::Inside,
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo: its server, and its client with every bit turned round.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            v4(high, low).max(v4(!client_high, !client_low))
        }
        // The metadata services of Amazon, Google, Oracle and Scaleway.
        [0xfd00, 0xec2, ..]
        | [0xfd20, 0xce, ..]
        | [0xfd00, 0xc1, ..]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Reach::Inside,
        // Link-local; multicast.
        [0xfe80..=0xfebf, ..] | [0xff00..=0xffff, ..] => Reach::Inside,
        // Unique local; site-local, which it replaced.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_address_leads_where_the_address_does() {
        let cases = [
            (
                Reach::Inside,
                "127.0.0.1 127.255.0.1 0.0.0.0 0.1.2.3 169.254.169.254 169.254.42.42 \
                 100.100.100.200 168.63.129.16 192.0.0.192 224.0.0.1 239.255.255.250 240.0.0.1 \
                 255.255.255.255 \
                 :: ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::169.254.169.254 \
                 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1:7f00::1 \
                 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:7f00:1:: 2001::5601:5601 \
                 fe80::1 febf::1 fe80::a9fe:a9fe ff02::1 \
                 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42",
            ),
            (
                Reach::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 100.127.0.1 \
                 198.18.0.1 198.19.0.1 \
                 fc00::1 fd12:3456::1 fec0::1 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::10.0.0.1 \
                 64:ff9b::100.64.0.1 2002:c0a8:1::1 2001:0:a00:1:0:0:f7f7:f7f7 2001:0:808:808:0:0:f5ff:fffe",
            ),
            (
                Reach::Public,
                "1.1.1.1 93.184.215.14 172.15.0.1 172.32.0.1 192.167.0.1 100.63.0.1 100.128.0.1 \
                 198.17.0.1 192.0.1.1 223.255.255.255 \
                 2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2002:101:101::1 2003::1 \
                 2001:0:808:808:0:0:f7f7:f7f7",
            ),
        ];
        for (expected, addresses) in cases {
            for address in addresses.split_whitespace() {
                assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
            }
        }
    }
}
