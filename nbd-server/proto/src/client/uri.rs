//! NBD URIs: `nbd://host[:port]/export` and `nbd+unix:///export?socket=/path`; under TLS
//! `nbds://` and `nbds+unix://`, with `tls-certificates=/folder` among the parameters.
//!
//! Source: NBD URI specification, `doc/uri.md` of the reference project.

use std::fmt::{self, Write as _};

use crate::{ExportName, Malformed};

/// The port assigned to NBD.
const PORT: u16 = 10809;

/// Where an export is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUri {
    /// How to reach the server.
    pub transport: Transport,
    /// The export; empty for the default one.
    pub export: ExportName,
    /// Asked for by `nbds` and `nbds+unix`, as libnbd and qemu understand them; in the clear if
    /// `None`.
    pub tls: Option<UriTls>,
}

/// What a URI says of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UriTls {
    /// The folder of `ca-cert.pem`, `client-cert.pem` and `client-key.pem`; if `None`, the client
    /// knows by itself whom to trust.
    pub certificates: Option<String>,
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// Port, 10809 if none was given.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Path of the socket.
        socket: String,
    },
}

/// Why a text is no URI we can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// There is no `://`.
    #[error("`{0}` is not a URI such as nbd://host:10809/export")]
    NoScheme(String),
    /// Not one of the schemes of NBD.
    #[error("scheme `{0}` is not one of nbd, nbd+unix, nbds and nbds+unix")]
    Scheme(String),
    /// The port is no number in 1..=65535.
    #[error("port `{0}` is not between 1 and 65535")]
    Port(String),
    /// An IPv6 address is not closed by `]`, or something else follows it.
    #[error("host `{0}` is not well formed")]
    Host(String),
    /// A user name only means something to TLS with keys shared in advance.
    #[error("a user name needs TLS with shared keys, which is not supported")]
    User,
    /// `%` is not followed by two hexadecimal digits, or the bytes are not UTF-8.
    #[error("`{0}` is not percent-encoded UTF-8")]
    Encoding(String),
    /// The export name cannot be one.
    #[error("the export name is not allowed")]
    Export(#[source] Malformed),
    /// `nbd+unix` without `?socket=`.
    #[error("nbd+unix needs ?socket=/path")]
    NoSocket,
    /// The path of the socket contains NUL.
    #[error("the path of the socket contains NUL")]
    Socket,
    /// The folder of certificates is empty or contains NUL.
    #[error("tls-certificates needs a folder")]
    Certificates,
    /// `tls-certificates` without TLS.
    #[error("tls-certificates needs the scheme nbds or nbds+unix")]
    CertificatesWithoutTls,
    /// `?socket=` without `nbd+unix`, or `nbd+unix` with a host.
    #[error("a socket and a host exclude each other")]
    SocketAndHost,
    /// A parameter that is not known.
    #[error("parameter `{0}` is not known")]
    Parameter(String),
    /// A parameter was given twice.
    #[error("parameter `{0}` was given twice")]
    Twice(String),
    /// URIs of NBD have no fragment.
    #[error("`#` has no meaning in an NBD URI")]
    Fragment,
}

impl std::str::FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| UriError::NoScheme(text.to_owned()))?;
        let (unix, secure) = match scheme {
            "nbd" => (false, false),
            "nbd+unix" => (true, false),
            "nbds" => (false, true),
            "nbds+unix" => (true, true),
            _ => return Err(UriError::Scheme(scheme.to_owned())),
        };
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let Parameters {
            socket,
            certificates,
        } = parameters(query)?;
        if certificates.is_some() && !secure {
            return Err(UriError::CertificatesWithoutTls);
        }
        let tls = secure.then_some(UriTls { certificates });
        let export = ExportName::new(&decode(path)?).map_err(UriError::Export)?;
        let transport = match (unix, socket) {
            (true, None) => return Err(UriError::NoSocket),
            (false, Some(_)) => return Err(UriError::SocketAndHost),
            (true, Some(_)) if !authority.is_empty() => return Err(UriError::SocketAndHost),
            (true, Some(socket)) => Transport::Unix { socket },
            (false, None) => tcp(authority)?,
        };
        Ok(NbdUri {
            transport,
            export,
            tls,
        })
    }
}

impl NbdUri {
    fn print_transport(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "nbds" } else { "nbd" };
        match &self.transport {
            Transport::Tcp { host, port } => {
                write!(f, "{scheme}://")?;
                if host.contains(':') {
                    write!(f, "[{host}]")?;
                } else {
                    encode(host, "", f)?;
                }
                if *port != PORT {
                    write!(f, ":{port}")?;
                }
                f.write_char('/')?;
                encode(self.export.as_str(), "/", f)
            }
            Transport::Unix { socket } => {
                write!(f, "{scheme}+unix:///")?;
                encode(self.export.as_str(), "/", f)?;
                f.write_str("?socket=")?;
                encode(socket, "/", f)
            }
        }
    }
}

impl fmt::Display for NbdUri {
    /// The URI, ready to paste; parsing it gives the same again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print_transport(f)?;
        let certificates = self.tls.as_ref().and_then(|tls| tls.certificates.as_ref());
        let Some(certificates) = certificates else {
            return Ok(());
        };
        f.write_char(match self.transport {
            Transport::Tcp { .. } => '?',
            Transport::Unix { .. } => '&',
        })?;
        f.write_str("tls-certificates=")?;
        encode(certificates, "/", f)
    }
}

#[derive(Default)]
struct Parameters {
    socket: Option<String>,
    certificates: Option<String>,
}

fn parameters(query: &str) -> Result<Parameters, UriError> {
    let mut found = Parameters::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key {
            "socket" if found.socket.is_some() => return Err(UriError::Twice(key.to_owned())),
            "tls-certificates" if found.certificates.is_some() => {
                return Err(UriError::Twice(key.to_owned()));
            }
            "socket" if value.is_empty() => return Err(UriError::NoSocket),
            "socket" => {
                let path = decode(value)?;
                if path.contains('\0') {
                    return Err(UriError::Socket);
                }
                found.socket = Some(path);
            }
            "tls-certificates" => {
                let path = decode(value)?;
                if path.is_empty() || path.contains('\0') {
                    return Err(UriError::Certificates);
                }
                found.certificates = Some(path);
            }
            _ => return Err(UriError::Parameter(key.to_owned())),
        }
    }
    Ok(found)
}

/// `host`, `host:port`, `[address]` or `[address]:port`; without a host it is this one.
fn tcp(authority: &str) -> Result<Transport, UriError> {
    if authority.contains('@') {
        return Err(UriError::User);
    }
    let wrong = || UriError::Host(authority.to_owned());
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(wrong)?;
            if address.is_empty() || address.contains('[') || !address.contains(':') {
                return Err(wrong());
            }
            match after.strip_prefix(':') {
                Some(port) => (address.to_owned(), Some(port)),
                None if after.is_empty() => (address.to_owned(), None),
                None => return Err(wrong()),
            }
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(wrong()),
            Some((host, port)) => (decode(host)?, Some(port)),
            None => (decode(authority)?, None),
        },
    };
    // A colon belongs to an address in brackets, and cannot come in by percent-encoding.
    let is_address = authority.starts_with('[');
    if host.contains('\0') || (host.contains(':') && !is_address) {
        return Err(wrong());
    }
    let host = if host.is_empty() {
        "localhost".to_owned()
    } else {
        host
    };
    Ok(Transport::Tcp {
        host,
        port: port.map_or(Ok(PORT), parse_port)?,
    })
}

fn parse_port(text: &str) -> Result<u16, UriError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(UriError::Port(text.to_owned())),
    }
}

/// `text` with every `%xx` replaced by its byte.
fn decode(text: &str) -> Result<String, UriError> {
    let wrong = || UriError::Encoding(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || {
                let digit = rest.next().and_then(|byte| char::from(byte).to_digit(16));
                digit.ok_or_else(wrong)
            };
            let (high, low) = (digit()?, digit()?);
            bytes.push((high << 4 | low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Writes `text` with everything but unreserved characters and those of `keep` as `%xx`.
fn encode(text: &str, keep: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in text.bytes() {
        let plain = char::from(byte);
        if plain.is_ascii_alphanumeric() || "-._~".contains(plain) || keep.contains(plain) {
            f.write_char(plain)?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<NbdUri, UriError> {
        text.parse()
    }

    fn tcp_uri(host: &str, port: u16, export: &str) -> NbdUri {
        let transport = Transport::Tcp {
            host: host.to_owned(),
            port,
        };
        NbdUri {
            transport,
            export: ExportName::new(export).unwrap(),
            tls: None,
        }
    }

    fn unix_uri(socket: &str, export: &str) -> NbdUri {
        let transport = Transport::Unix {
            socket: socket.to_owned(),
        };
        NbdUri {
            transport,
            export: ExportName::new(export).unwrap(),
            tls: None,
        }
    }

    #[test]
    fn uris_mean_these_exports() {
        for (text, uri) in [
            ("nbd://alpha", tcp_uri("alpha", 10809, "")),
            ("nbd://alpha/", tcp_uri("alpha", 10809, "")),
            (
                "nbd://alpha:10810/vm-store",
                tcp_uri("alpha", 10810, "vm-store"),
            ),
            ("nbd://127.0.0.1/a/b", tcp_uri("127.0.0.1", 10809, "a/b")),
            ("nbd://alpha//a", tcp_uri("alpha", 10809, "/a")),
            ("nbd://alpha/a%20%C3%BC", tcp_uri("alpha", 10809, "a ü")),
            ("nbd://[::1]:1/a", tcp_uri("::1", 1, "a")),
            ("nbd://[fe80::1]/a", tcp_uri("fe80::1", 10809, "a")),
            ("nbd:///a", tcp_uri("localhost", 10809, "a")),
            (
                "nbd+unix:///a?socket=/run/x.sock",
                unix_uri("/run/x.sock", "a"),
            ),
            ("nbd+unix://?socket=x%26y", unix_uri("x&y", "")),
        ] {
            assert_eq!(parse(text), Ok(uri), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = str::to_owned;
        for (uri, error) in [
            ("alpha:10809", UriError::NoScheme(text("alpha:10809"))),
            ("http://alpha/", UriError::Scheme(text("http"))),
            ("nbd+vsock://1/", UriError::Scheme(text("nbd+vsock"))),
            ("nbdss://alpha/", UriError::Scheme(text("nbdss"))),
            ("nbds+unix:///", UriError::NoSocket),
            ("nbds://me@alpha/", UriError::User),
            ("nbds:///?tls-certificates=", UriError::Certificates),
            ("nbds:///?tls-certificates=%00", UriError::Certificates),
            (
                "nbd:///?tls-certificates=/x",
                UriError::CertificatesWithoutTls,
            ),
            (
                "nbds:///?tls-certificates=x&tls-certificates=x",
                UriError::Twice(text("tls-certificates")),
            ),
            ("nbd://alpha:0/", UriError::Port(text("0"))),
            ("nbd://alpha:65536/", UriError::Port(text("65536"))),
            ("nbd://alpha:+1/", UriError::Port(text("+1"))),
            ("nbd://alpha:/", UriError::Port(text(""))),
            ("nbd://::1/", UriError::Host(text("::1"))),
            ("nbd://[::1/", UriError::Host(text("[::1"))),
            ("nbd://[::1]x/", UriError::Host(text("[::1]x"))),
            ("nbd://[alpha]/", UriError::Host(text("[alpha]"))),
            // Found by the fuzz target: it printed as an address in brackets that was none.
            ("nbd://%3Aa[a/", UriError::Host(text("%3Aa[a"))),
            ("nbd://me@alpha/", UriError::User),
            ("nbd://alpha/%2", UriError::Encoding(text("%2"))),
            ("nbd://alpha/%zz", UriError::Encoding(text("%zz"))),
            ("nbd://alpha/%ff", UriError::Encoding(text("%ff"))),
            ("nbd://alpha/%00", UriError::Export(Malformed::Nul)),
            ("nbd+unix:///a", UriError::NoSocket),
            ("nbd+unix:///a?socket=", UriError::NoSocket),
            ("nbd+unix:///a?socket=x%00", UriError::Socket),
            ("nbd+unix://alpha/a?socket=x", UriError::SocketAndHost),
            ("nbd://alpha/a?socket=x", UriError::SocketAndHost),
            (
                "nbd+unix:///a?socket=x&socket=y",
                UriError::Twice(text("socket")),
            ),
            (
                "nbd://alpha/a?tls-verify-peer=1",
                UriError::Parameter(text("tls-verify-peer")),
            ),
            ("nbd://alpha/a#b", UriError::Fragment),
        ] {
            assert_eq!(parse(uri), Err(error), "{uri}");
        }
        let long = format!("nbd://alpha/{}", "x".repeat(4097));
        assert_eq!(
            parse(&long),
            Err(UriError::Export(Malformed::StringTooLong(4097)))
        );
    }

    #[test]
    fn under_tls_only_the_scheme_differs() {
        let tls = Some(UriTls::default());
        let tcp = NbdUri {
            tls: tls.clone(),
            ..tcp_uri("::1", 10810, "a b")
        };
        assert_eq!(tcp.to_string(), "nbds://[::1]:10810/a%20b");
        let unix = NbdUri {
            tls,
            ..unix_uri("/run/x.sock", "a")
        };
        let text = "nbds+unix:///a?socket=/run/x.sock";
        assert_eq!((unix.to_string(), parse(text)), (text.to_owned(), Ok(unix)));
    }

    #[test]
    fn a_uri_may_name_the_certificates() {
        let tls = Some(UriTls {
            certificates: Some("/etc/pollux/tls a".to_owned()),
        });
        let tcp = NbdUri {
            tls,
            ..tcp_uri("alpha", 10809, "a")
        };
        let text = "nbds://alpha/a?tls-certificates=/etc/pollux/tls%20a";
        assert_eq!(
            (parse(text), tcp.to_string()),
            (Ok(tcp.clone()), text.to_owned())
        );
        let unix = NbdUri {
            tls: tcp.tls,
            ..unix_uri("/s", "a")
        };
        let text = "nbds+unix:///a?socket=/s&tls-certificates=/etc/pollux/tls%20a";
        assert_eq!((parse(text), unix.to_string()), (Ok(unix), text.to_owned()));
    }

    proptest! {
        #[test]
        fn a_uri_prints_as_itself(host in "[^\0]{1,20}", port in 1u16.., export in "[^\0]{0,40}") {
            let uri = tcp_uri(&host, port, &export);
            // Only a well-formed IPv6 address may hold a colon.
            prop_assume!(!host.contains(':'));
            prop_assert_eq!(parse(&uri.to_string()), Ok(uri));
        }

        #[test]
        fn a_unix_uri_prints_as_itself(socket in "[^\0]{1,40}", export in "[^\0]{0,40}") {
            let uri = unix_uri(&socket, &export);
            prop_assert_eq!(parse(&uri.to_string()), Ok(uri));
        }
    }
}
