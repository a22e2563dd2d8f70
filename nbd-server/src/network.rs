//! Networks that may attach to an export.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network in CIDR notation; without a prefix length, one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongNetwork {
    /// The part before the slash is no address.
    #[error("`{0}` is not an address or a network such as 10.0.0.0/24")]
    Address(String),
    /// The part after the slash is no length for this family.
    #[error("the prefix length of `{text}` is not between 0 and {max}")]
    Prefix {
        /// The whole text.
        text: String,
        /// 32 or 128.
        max: u8,
    },
    /// Bits behind the prefix are set: one of the two is a mistake.
    #[error("`{text}` has bits set behind its prefix; the network is {network}")]
    HostBits {
        /// The whole text.
        text: String,
        /// What was probably meant.
        network: Network,
    },
}

impl Network {
    /// `address` belongs to it. An IPv4 address in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && masked(address, self.prefix) == masked(self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = WrongNetwork;

    fn from_str(text: &str) -> Result<Network, WrongNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let wrong = || WrongNetwork::Address(text.to_owned());
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => max,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= max)
                .ok_or_else(|| WrongNetwork::Prefix {
                    text: text.to_owned(),
                    max,
                })?,
        };
        let network = Network {
            address: masked(address, prefix),
            prefix,
        };
        if network.address != address {
            return Err(WrongNetwork::HostBits {
                text: text.to_owned(),
                network,
            });
        }
        Ok(network)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address with all bits behind the prefix cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network
            .parse::<Network>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix() {
        assert!(contains("10.0.0.0/24", "10.0.0.255"));
        assert!(!contains("10.0.0.0/24", "10.0.1.0"));
        assert!(contains("0.0.0.0/0", "255.1.2.3"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("10.0.0.7", "10.0.0.7"));
        assert!(!contains("10.0.0.7", "10.0.0.6"));
        assert!(contains("fd00::/8", "fd12::9"));
        assert!(!contains("fd00::/8", "fe80::1"));
        assert!(contains("::/0", "::1"));
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_is_an_ipv4_client() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!contains("::/0", "::ffff:10.1.2.3"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            error("local"),
            "`local` is not an address or a network such as 10.0.0.0/24"
        );
        assert_eq!(
            error("1.2.3.4/33"),
            "the prefix length of `1.2.3.4/33` is not between 0 and 32"
        );
        assert_eq!(
            error("::/129"),
            "the prefix length of `::/129` is not between 0 and 128"
        );
        assert_eq!(
            error("1.2.3.4/"),
            "the prefix length of `1.2.3.4/` is not between 0 and 32"
        );
        assert_eq!(
            error("10.0.0.7/24"),
            "`10.0.0.7/24` has bits set behind its prefix; the network is 10.0.0.0/24"
        );
    }
}
