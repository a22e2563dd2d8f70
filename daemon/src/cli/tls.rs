//! `pollux tls init`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use engine::tls::Fingerprint;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::output;
use crate::exit::Exit;
use crate::explain::{self, Failure};

/// Days for which certificates are made, and the authority.
const CERTIFICATE_DAYS: u64 = 825;
const AUTHORITY_DAYS: u64 = 3650;
/// Clocks of other machines may be behind by this much.
const EARLIER: Duration = Duration::from_secs(86_400);

/// Certificates for NBD and for links between nodes
#[derive(Debug, Subcommand)]
#[command(after_help = "\
EXAMPLES
  pollux tls init /etc/pollux/tls --server alpha.example --server 10.0.0.1
  pollux tls init /etc/pollux/tls --client hyper2
  pollux tls init ./tls --for-node alpha --for-node beta")]
pub(super) enum Tls {
    Init(Init),
}

/// Make an authority, and certificates of an NBD server, of its clients, or of nodes
///
/// Files have the names that libnbd, qemu and nbdkit look for: ca-cert.pem, server-cert.pem,
/// server-key.pem, client-cert.pem, client-key.pem, and ca-key.pem, which signs more of them. Keys
/// are closed to others. What is there already is kept: run it again with other names for more
/// clients, each in a folder of its own. A client takes ca-cert.pem, client-cert.pem and
/// client-key.pem; ca-key.pem stays here.
///
/// With --for-node it makes a folder for each node, DIR/NODE, with ca-cert.pem, node-cert.pem and
/// node-key.pem for [tls], and nothing for NBD unless that is asked for too. The certificate names
/// its node and no address; what is printed as its fingerprint can be pinned.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  pollux tls init /etc/pollux/tls --server alpha.example --server 10.0.0.1
  pollux tls init /etc/pollux/tls --client hyper2      more: /etc/pollux/tls/hyper2/client-cert.pem
  pollux tls init ./tls --for-node alpha --for-node beta       ./tls/alpha and ./tls/beta, one for each machine")]
pub(super) struct Init {
    /// Folder; made if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Name or address of the server, several times for several [default: localhost, 127.0.0.1, ::1
    /// and this host]
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// Common name of the client (CN=NAME in allow_subjects); once the folder has a client
    /// certificate, in a folder below it [default: client]
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Name of a node, as in [node.NAME], several times for several
    #[arg(long, value_name = "NAME")]
    for_node: Vec<String>,
}

impl Tls {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let Tls::Init(init) = self;
        let text = init
            .make()
            .map_err(|why| explain::tls_init_failed(&init.dir, &why))?;
        output::say(&text);
        Ok(Exit::Done)
    }
}

impl Init {
    /// Makes what is missing, and says what was made.
    fn make(&self) -> io::Result<String> {
        let names = self.client.iter().map(|name| ("client", name));
        let names = names.chain(self.for_node.iter().map(|name| ("node", name)));
        for (what, name) in names {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
                let text =
                    format!("\"{name}\" is no name for a {what}: A-Z a-z 0-9 . _ - make one");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        make_dir(&self.dir)?;
        let mut said = String::new();
        let authority = self.authority(&mut said)?;
        let is_for_nbd =
            self.for_node.is_empty() || self.client.is_some() || !self.server.is_empty();
        if is_for_nbd {
            self.for_nbd(&authority, &mut said)?;
        }
        for node in &self.for_node {
            self.for_node(node, &authority, &mut said)?;
        }
        if said.is_empty() {
            said = "nothing to do: all of them have their certificates\n".to_owned();
        }
        let dir = self.dir.display();
        if is_for_nbd {
            said.push_str(&format!(
                "next, in [node.NAME.nbd_tls]:\n  cert = \"{dir}/server-cert.pem\"\n  \
                 key = \"{dir}/server-key.pem\"\n  client_ca = \"{dir}/ca-cert.pem\"\n"
            ));
        }
        if !self.for_node.is_empty() {
            said.push_str(&format!(
                "next, copy {dir}/NODE to /etc/pollux/tls of each node, and in [tls]:\n  \
                 cert = \"/etc/pollux/tls/node-cert.pem\"\n  \
                 key = \"/etc/pollux/tls/node-key.pem\"\n  \
                 ca = \"/etc/pollux/tls/ca-cert.pem\"\n"
            ));
        }
        Ok(said)
    }

    /// Certificates of the server and of a client.
    fn for_nbd(&self, authority: &Issuer<'static, KeyPair>, said: &mut String) -> io::Result<()> {
        let name = self.client.as_deref().unwrap_or("client");
        let file = |name: &str| self.dir.join(name);
        if !file("server-cert.pem").exists() {
            let mut params = named_params(&self.server_names()).map_err(io::Error::other)?;
            let usage = [ExtendedKeyUsagePurpose::ServerAuth];
            issue(authority, &mut params, &usage, &self.dir, "server", said)?;
        }
        let (dir, is_first) = match file("client-cert.pem").exists() {
            false => (self.dir.clone(), true),
            true => (file(name), false),
        };
        if !dir.join("client-cert.pem").exists() && (is_first || name != "client") {
            if !is_first {
                self.folder(&dir)?;
            }
            let mut params = CertificateParams::default();
            params.distinguished_name = named(name);
            let usage = [ExtendedKeyUsagePurpose::ClientAuth];
            issue(authority, &mut params, &usage, &dir, "client", said)?;
        }
        Ok(())
    }

    /// The certificate with which a node dials and accepts.
    fn for_node(
        &self,
        name: &str,
        authority: &Issuer<'static, KeyPair>,
        said: &mut String,
    ) -> io::Result<()> {
        let dir = self.dir.join(name);
        if dir.join("node-cert.pem").exists() {
            return Ok(());
        }
        self.folder(&dir)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        let dns = name.try_into().map_err(io::Error::other)?;
        params.subject_alt_names.push(SanType::DnsName(dns));
        let usage = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = issue(authority, &mut params, &usage, &dir, "node", said)?;
        said.push_str(&format!(
            "  fingerprint of {name}: {}\n",
            Fingerprint::of(certificate.der())
        ));
        Ok(())
    }

    /// A folder below ours, with the authority's certificate.
    fn folder(&self, dir: &Path) -> io::Result<()> {
        make_dir(dir)?;
        let ca = dir.join("ca-cert.pem");
        match ca.exists() {
            true => Ok(()),
            false => write_new(
                &ca,
                &fs::read_to_string(self.dir.join("ca-cert.pem"))?,
                0o644,
            ),
        }
    }

    /// The authority of the folder, or a new one.
    fn authority(&self, said: &mut String) -> io::Result<Issuer<'static, KeyPair>> {
        let (cert, key) = (self.dir.join("ca-cert.pem"), self.dir.join("ca-key.pem"));
        match (cert.exists(), key.exists()) {
            (true, true) => {
                let pair = KeyPair::from_pem(&fs::read_to_string(&key)?);
                let pem = fs::read_to_string(&cert)?;
                return Issuer::from_ca_cert_pem(&pem, pair.map_err(io::Error::other)?)
                    .map_err(io::Error::other);
            }
            (false, false) => {}
            _ => {
                let text = "of ca-cert.pem and ca-key.pem there is only one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named("Pollux authority");
        in_force(&mut params, AUTHORITY_DAYS);
        let pair = KeyPair::generate().map_err(io::Error::other)?;
        let pem = params.self_signed(&pair).map_err(io::Error::other)?.pem();
        write_new(&key, &pair.serialize_pem(), 0o600)?;
        write_new(&cert, &pem, 0o644)?;
        say(said, &cert, "authority");
        Ok(Issuer::new(params, pair))
    }

    fn server_names(&self) -> Vec<String> {
        if !self.server.is_empty() {
            return self.server.clone();
        }
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let mut names = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        if !host.is_empty() && host != "localhost" {
            names.push(host);
        }
        names
    }
}

fn named_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&names[0]);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    Ok(params)
}

fn named(name: &str) -> rcgen::DistinguishedName {
    let mut names = rcgen::DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn in_force(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

/// Writes `<what>-cert.pem` and `<what>-key.pem`.
fn issue(
    authority: &Issuer<'static, KeyPair>,
    params: &mut CertificateParams,
    usage: &[ExtendedKeyUsagePurpose],
    dir: &Path,
    what: &str,
    said: &mut String,
) -> io::Result<Certificate> {
    params.extended_key_usages = usage.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    in_force(params, CERTIFICATE_DAYS);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params
        .signed_by(&key, authority)
        .map_err(io::Error::other)?;
    let path = dir.join(format!("{what}-cert.pem"));
    write_new(
        &dir.join(format!("{what}-key.pem")),
        &key.serialize_pem(),
        0o600,
    )?;
    write_new(&path, &certificate.pem(), 0o644)?;
    say(said, &path, what);
    Ok(certificate)
}

fn say(said: &mut String, path: &Path, what: &str) {
    said.push_str(&format!("made {} ({what})\n", path.display()));
}

/// Nobody else may look into a folder of keys that we make.
fn make_dir(path: &Path) -> io::Result<()> {
    match path.is_dir() {
        true => Ok(()),
        false => fs::DirBuilder::new().mode(0o700).create(path),
    }
}

/// A file that was not there before. Errors: it was.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", path.display())))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
