//! Which addresses may be connected to. Names are judged by what they resolve to, at the moment of
//! the connection, so that a name cannot change its mind between the check and the use.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

/// Which addresses may be connected to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// All: for URLs that the person wrote who runs the program.
    Any,
    /// All but those of metadata services, which hand out credentials; and these networks. For URLs of people who
    /// may run programs on this machine.
    Inside(Networks),
    /// Those of the public internet, and these networks: for URLs of anybody else.
    Public(Networks),
}

impl Policy {
    /// Whether a connection to `address` may be made.
    pub fn permits(&self, address: IpAddr) -> bool {
        let reach = Reach::of(address);
        match self {
            Self::Any => true,
            Self::Inside(named) => reach != Reach::Metadata || named.contain(address),
            Self::Public(named) => reach == Reach::Public || named.contain(address),
        }
    }

    /// The same for URLs of others: the public internet, and the networks that are named.
    #[must_use]
    pub fn outside(&self) -> Self {
        match self {
            Self::Any => Self::Public(Networks::default()),
            Self::Inside(named) | Self::Public(named) => Self::Public(named.clone()),
        }
    }
}

/// Networks that somebody named. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Arc<[Network]>);

impl Networks {
    /// These.
    pub fn new(all: impl IntoIterator<Item = Network>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// A part of all addresses: `loopback`, `private`, or a block such as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// This machine.
    Loopback,
    /// Private networks (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// All addresses that begin with so many bits of this one.
    Block(IpAddr, u8),
}

/// A text that names no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `loopback`, `private`, or a network such as 10.1.0.0/16 or fd12::/16")]
pub struct InvalidNetwork;

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        match text.trim() {
            "loopback" => return Ok(Self::Loopback),
            "private" => return Ok(Self::Private),
            _ => {}
        }
        let (address, bits) = text.trim().split_once('/').unzip();
        let address: IpAddr = address
            .unwrap_or(text.trim())
            .parse()
            .map_err(|_| InvalidNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits: &str| bits.parse::<u8>());
        let bits = bits.ok().filter(|bits| *bits <= most);
        Ok(Self::Block(address, bits.ok_or(InvalidNetwork)?))
    }
}

impl Network {
    /// Whether an address is in there. One of a metadata service is only where it is named alone: nobody who
    /// names a network means the credentials of its machines.
    fn contains(self, address: IpAddr) -> bool {
        let reach = Reach::of(address);
        let Self::Block(network, bits) = self else {
            return reach
                == if self == Self::Loopback {
                    Reach::Loopback
                } else {
                    Reach::Private
                };
        };
        let (address, network) = (address.to_canonical(), network.to_canonical());
        if reach == Reach::Metadata {
            return address == network;
        }
        let differ = match (address, network) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (one.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        differ >= u32::from(bits)
    }
}

/// Where an address leads, by the IANA special-purpose registries (RFC 6890 and its updates).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The public internet.
    Public,
    /// This machine.
    Loopback,
    /// A private network (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// The network segment of this machine.
    LinkLocal,
    /// The metadata service of a cloud, which hands out credentials.
    Metadata,
    /// Multicast, documentation, benchmarking, tunnels and what is not assigned.
    Reserved,
}

impl Reach {
    /// Judges an address. IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64, 6to4)
    /// are judged by that address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => v4(address),
            IpAddr::V6(address) => v6(address),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Reserved => "reserved",
        })
    }
}

const fn v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        // AWS, Azure, GCP and most others; ECS tasks; EKS pods; Alibaba; Azure's wire server; Oracle.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        | [168, 63, 129, 16]
        | [192, 0, 0, 192] => Reach::Metadata,
        // Connecting to 0.0.0.0 reaches this machine on Linux.
        [127, ..] | [0, 0, 0, 0] => Reach::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        [169, 254, ..] => Reach::LinkLocal,
        [0 | 224..=255, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Reserved,
        _ => Reach::Public,
    }
}

const fn v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Loopback,
        // Mapped, compatible and NAT64 (RFC 6052) carry an IPv4 address in the end.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            v4(embedded(high, low))
        }
        // AWS instances and EKS pods; GCP.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Reach::Metadata
        }
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Reach::Private,
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(embedded(high, low)),
        // IETF protocols with Teredo, and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Reserved,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Reserved,
    }
}

const fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reach(text: &str) -> Reach {
        Reach::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_this_machine_and_its_networks_are_recognised() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(reach(address), Reach::Loopback, "{address}");
        }
        for address in [
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "fd12::1",
            "fec0::1",
        ] {
            assert_eq!(reach(address), Reach::Private, "{address}");
        }
        for address in ["169.254.1.1", "fe80::1", "febf::1"] {
            assert_eq!(reach(address), Reach::LinkLocal, "{address}");
        }
    }

    #[test]
    fn metadata_services_are_recognised_in_every_notation() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert_eq!(reach(address), Reach::Metadata, "{address}");
        }
    }

    #[test]
    fn a_network_that_is_named_is_permitted_and_its_metadata_service_only_when_it_is_named_alone() {
        let permits = |networks: &[&str], address: &str| {
            let networks = networks.iter().map(|text| text.parse().unwrap());
            let policy = Policy::Public(Networks::new(networks));
            policy.permits(address.parse().unwrap())
        };
        for (network, address) in [
            ("loopback", "127.9.0.1"),
            ("loopback", "::ffff:127.0.0.1"),
            ("private", "10.0.0.1"),
            ("private", "fd12::1"),
            ("10.1.0.0/16", "10.1.255.255"),
            ("10.1.0.0/16", "::ffff:10.1.2.3"),
            ("192.168.1.7", "192.168.1.7"),
            ("fe80::/10", "fe80::1"),
            ("169.254.169.254", "169.254.169.254"),
            ("0.0.0.0/0", "10.0.0.1"),
        ] {
            assert!(permits(&[network], address), "{network} {address}");
        }
        for (network, address) in [
            ("loopback", "10.0.0.1"),
            ("private", "127.0.0.1"),
            ("private", "169.254.1.1"),
            ("private", "fd00:ec2::254"),
            ("10.1.0.0/16", "10.2.0.1"),
            ("192.168.1.7", "192.168.1.8"),
            ("169.254.0.0/16", "169.254.169.254"),
            ("fd00::/8", "fd00:ec2::254"),
            ("0.0.0.0/0", "169.254.169.254"),
            ("0.0.0.0/0", "::1"),
        ] {
            assert!(!permits(&[network], address), "{network} {address}");
        }
        for wrong in ["", "/8", "10.0.0.0/33", "10.0.0.0/x", "lan", "10.0.0.0/8/8"] {
            assert_eq!(wrong.parse::<Network>(), Err(InvalidNetwork), "{wrong}");
        }
    }

    #[test]
    fn what_is_assigned_to_nobody_is_reserved() {
        for address in [
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.9",
            "ff02::1",
            "2001:db8::1",
            "4000::1",
        ] {
            assert_eq!(reach(address), Reach::Reserved, "{address}");
        }
    }

    #[test]
    fn the_neighbours_of_special_blocks_are_public() {
        for address in [
            "9.255.255.255",
            "11.0.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "2606:4700::1111",
        ] {
            assert_eq!(reach(address), Reach::Public, "{address}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_cannot_hide_in_ipv6(high: u16, low: u16) {
            let plain = embedded(high, low);
            prop_assert_eq!(Reach::of(plain.to_ipv6_mapped().into()), v4(plain));
            prop_assert_eq!(v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)), v4(plain));
            prop_assert_eq!(v6(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)), v4(plain));
        }

        #[test]
        fn public_means_not_special(raw: u128) {
            let address = IpAddr::V6(Ipv6Addr::from(raw));
            let (public, inside) = (Policy::Any.outside(), Policy::Inside(Networks::default()));
            prop_assert_eq!(public.permits(address), Reach::of(address) == Reach::Public);
            prop_assert_eq!(inside.permits(address), Reach::of(address) != Reach::Metadata);
            prop_assert!(Policy::Any.permits(address));
        }
    }
}
