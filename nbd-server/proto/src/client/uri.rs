//! NBD URIs: `nbd://host[:port]/export` and `nbd+unix:///export?socket=/path`.
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
    /// Not one of the schemes `nbd` and `nbd+unix`.
    #[error("scheme `{0}` is not one of nbd and nbd+unix")]
    Scheme(String),
    /// `nbds` asks for TLS.
    #[error("scheme `{0}` asks for TLS, which is not supported")]
    Tls(String),
    /// The port is no number in 1..=65535.
    #[error("port `{0}` is not between 1 and 65535")]
    Port(String),
    /// An IPv6 address is not closed by `]`, or something else follows it.
    #[error("host `{0}` is not well formed")]
    Host(String),
    /// A user name only means something to TLS.
    #[error("a user name needs TLS, which is not supported")]
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
        let unix = match scheme {
            "nbd" => false,
            "nbd+unix" => true,
            "nbds" | "nbds+unix" => return Err(UriError::Tls(scheme.to_owned())),
            _ => return Err(UriError::Scheme(scheme.to_owned())),
        };
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let socket = socket(query)?;
        let export = ExportName::new(&decode(path)?).map_err(UriError::Export)?;
        let transport = match (unix, socket) {
            (true, None) => return Err(UriError::NoSocket),
            (false, Some(_)) => return Err(UriError::SocketAndHost),
            (true, Some(_)) if !authority.is_empty() => return Err(UriError::SocketAndHost),
            (true, Some(socket)) => Transport::Unix { socket },
            (false, None) => tcp(authority)?,
        };
        Ok(NbdUri { transport, export })
    }
}

impl fmt::Display for NbdUri {
    /// The URI, ready to paste; parsing it gives the same again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Tcp { host, port } => {
                f.write_str("nbd://")?;
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
                f.write_str("nbd+unix:///")?;
                encode(self.export.as_str(), "/", f)?;
                f.write_str("?socket=")?;
                encode(socket, "/", f)
            }
        }
    }
}

/// The socket a query names, if any.
fn socket(query: &str) -> Result<Option<String>, UriError> {
    let mut socket = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key {
            "socket" if socket.is_some() => return Err(UriError::Twice(key.to_owned())),
            "socket" if value.is_empty() => return Err(UriError::NoSocket),
            "socket" => socket = Some(decode(value)?),
            _ => return Err(UriError::Parameter(key.to_owned())),
        }
    }
    Ok(socket)
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
    if host.contains('\0') {
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
