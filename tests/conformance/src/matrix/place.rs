//! An export as each family of clients wants to be told of it.

use std::path::PathBuf;

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP on loopback.
    Tcp,
    /// A Unix socket.
    Unix,
    /// TCP with TLS and certificates on both sides.
    TcpTls,
    /// A Unix socket with the same.
    UnixTls,
}

impl Transport {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Transport; 4] = [
        Transport::Tcp,
        Transport::Unix,
        Transport::TcpTls,
        Transport::UnixTls,
    ];

    /// Head of its column.
    pub fn word(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Unix => "Unix",
            Transport::TcpTls => "TCP + TLS",
            Transport::UnixTls => "Unix + TLS",
        }
    }

    /// It is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Transport::TcpTls | Transport::UnixTls)
    }

    fn is_unix(self) -> bool {
        matches!(self, Transport::Unix | Transport::UnixTls)
    }
}

/// An export over one transport.
#[derive(Clone, Debug)]
pub struct Place {
    /// How it is reached.
    pub transport: Transport,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Unix socket.
    pub socket: PathBuf,
    /// Its name.
    pub export: String,
    /// Its size.
    pub size_bytes: u64,
    /// Folder with `ca-cert.pem`, `client-cert.pem`, `client-key.pem`; with TLS only.
    pub certificates: Option<PathBuf>,
}

impl Place {
    /// URI as libnbd reads it.
    pub fn uri(&self) -> String {
        let tls = match &self.certificates {
            Some(folder) => format!("tls-certificates={}", folder.display()),
            None => String::new(),
        };
        let scheme = if self.transport.is_tls() {
            "nbds"
        } else {
            "nbd"
        };
        let (port, export) = (self.port, &self.export);
        match (self.transport.is_unix(), tls.as_str()) {
            (false, "") => format!("{scheme}://127.0.0.1:{port}/{export}"),
            (false, tls) => format!("{scheme}://127.0.0.1:{port}/{export}?{tls}"),
            (true, tls) => {
                let socket = self.socket.display();
                let and = if tls.is_empty() { "" } else { "&" };
                format!("{scheme}+unix:///{export}?socket={socket}{and}{tls}")
            }
        }
    }

    /// QEMU's `--object` words for the credentials, none without TLS.
    pub fn qemu_objects(&self) -> Vec<String> {
        let Some(folder) = &self.certificates else {
            return Vec::new();
        };
        let folder = folder.display();
        let object = format!("tls-creds-x509,id=creds,endpoint=client,dir={folder},verify-peer=on");
        vec!["--object".to_owned(), object]
    }

    /// QEMU's options of a block node.
    pub fn qemu_options(&self) -> String {
        let mut options = format!("driver=nbd,export={}", self.export);
        if self.transport.is_unix() {
            options += &format!(",server.type=unix,server.path={}", self.socket.display());
        } else {
            options += &format!(
                ",server.type=inet,server.host=127.0.0.1,server.port={}",
                self.port
            );
        }
        if self.transport.is_tls() {
            options += ",tls-creds=creds";
        }
        if self.transport == Transport::UnixTls {
            // There is no host name to compare the certificate with, so one is named.
            options += ",tls-hostname=localhost";
        }
        options
    }
}
