//! `host:port`, and whether strangers can reach it.

use std::fmt;
use std::net::IpAddr;

/// A TCP address as written: `127.0.0.1:8790`, `[::1]:8790`, `alpha.example:8790`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address without brackets, or a name.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port`. Errors: a sentence on what is wrong.
    pub fn parse(text: &str) -> Result<Endpoint, &'static str> {
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port = port
            .parse()
            .map_err(|_| "the port must be a number from 1 to 65535")?;
        if port == 0 {
            return Err("the port must be a number from 1 to 65535");
        }
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare {
            Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => Ok(Endpoint {
                host: bare.to_owned(),
                port,
            }),
            Some(_) => Err("between the brackets must stand an IPv6 address"),
            None if host.contains(':') => Err("an IPv6 address needs brackets"),
            None if is_host(host) => Ok(Endpoint {
                host: host.to_owned(),
                port,
            }),
            None => Err("the host must be an IP address or a name"),
        }
    }

    /// Only this machine reaches it. A name other than `localhost` counts as reachable by others.
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.to_canonical().is_loopback(),
            None => self.host == "localhost",
        }
    }

    /// All addresses of the machine.
    pub fn is_wildcard(&self) -> bool {
        self.ip()
            .is_some_and(|ip| ip.to_canonical().is_unspecified())
    }

    /// Both cannot be listened on at once.
    pub fn clashes_with(&self, other: &Endpoint) -> bool {
        let same_host = self.host == other.host || self.is_wildcard() || other.is_wildcard();
        self.port == other.port && same_host
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A host of digits and dots that is no IPv4 address is a slip, not a name.
    let number = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let fits = !host.is_empty() && host.len() <= 253;
    fits && host.split('.').all(label) && (!number || host.parse::<IpAddr>().is_ok())
}

/// The network `text` names, as `address/prefix`. Errors: a sentence and what was perhaps meant.
pub(super) fn parse_network(text: &str) -> Result<String, (&'static str, Option<String>)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = address
        .parse()
        .map_err(|_| ("this is no IP address or network", None))?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => width,
        Some(prefix) => match prefix.parse::<u32>() {
            Ok(prefix) if prefix <= width => prefix,
            _ => return Err(("the prefix is longer than the address", None)),
        },
    };
    let network = clear_host_bits(ip, prefix);
    match network == ip {
        true => Ok(format!("{ip}/{prefix}")),
        false => Err((
            "bits are set beyond the prefix",
            Some(format!("`{network}/{prefix}`")),
        )),
    }
}

fn clear_host_bits(ip: IpAddr, prefix: u32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::from((ip.to_bits() & mask).to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::from((ip.to_bits() & mask).to_be_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port() {
        for good in [
            "127.0.0.1:8790",
            "[::1]:1",
            "alpha.example:65535",
            "localhost:10809",
        ] {
            assert_eq!(Endpoint::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "8790",
            "a:0",
            "a:70000",
            "::1:8790",
            "[a]:1",
            ":1",
            "300.1.1.1:1",
            "a b:1",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_addresses_are_loopback() {
        let of = |text: &str| Endpoint::parse(text).unwrap();
        for inside in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"] {
            assert!(of(inside).is_loopback(), "{inside}");
        }
        for outside in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "alpha:1"] {
            assert!(!of(outside).is_loopback(), "{outside}");
        }
        assert!(of("0.0.0.0:1").clashes_with(&of("127.0.0.1:1")));
        assert!(!of("127.0.0.2:1").clashes_with(&of("127.0.0.1:1")));
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_prefix() {
        assert_eq!(parse_network("10.0.0.0/24").unwrap(), "10.0.0.0/24");
        assert_eq!(parse_network("10.0.0.7").unwrap(), "10.0.0.7/32");
        assert_eq!(parse_network("::/0").unwrap(), "::/0");
        assert_eq!(parse_network("0.0.0.0/0").unwrap(), "0.0.0.0/0");
        let (_, meant) = parse_network("10.0.0.7/24").unwrap_err();
        assert_eq!(meant.unwrap(), "`10.0.0.0/24`");
        for bad in [
            "10.0.0.0/33",
            "10.0.0/8",
            "x",
            "",
            "::1/129",
            "10.0.0.0/-1",
            "1.1.1.1/",
        ] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
    }
}
